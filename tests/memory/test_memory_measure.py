"""What the process holds."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from unveil.memory.measure import held_by_process, return_freed
if sys.argv[1] == "returned":
    return_freed()
bytearray(1 << 24)  # freed at once: glibc keeps blocks of up to this size from now on
before, blocks, between = held_by_process(), [], []
for _ in range(64):
    blocks.append(bytearray(b"x") * (1 << 20))
    between.append(bytearray(1 << 12))
del blocks
print(held_by_process() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told to return blocks")
def test_freed_blocks_leave_the_process_and_would_stay_otherwise():
    kept = {
        how: int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)
        for how in ("returned", "kept")
    }
    assert kept["returned"] < 8 << 20 < 32 << 20 < kept["kept"]  # the second is the control
