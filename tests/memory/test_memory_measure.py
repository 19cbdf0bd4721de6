"""What the process holds."""

import subprocess
import sys

import pytest
import torch

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


KERNELS = """
import sys, torch
from torch.nn import functional as F
from unveil.memory.measure import held_by_process, return_freed
from unveil.model.backbone.experts import ExpertWeights, apply_experts
return_freed()
x = torch.randn(100, 64, dtype=torch.bfloat16)
experts = ExpertWeights(*(torch.randn(1, *shape, dtype=torch.bfloat16) for shape in ((32, 64), (32, 64), (64, 32))))
def use(rows):
    if sys.argv[1] == "products":
        return F.linear(F.linear(rows, experts.gate[0]), experts.down[0])
    return apply_experts(rows, experts, torch.zeros(len(rows), 1, dtype=torch.long), torch.ones(len(rows), 1))
use(x[:1])
before = held_by_process()
for n in range(1, 101):
    use(x[:n])
print(held_by_process() - before)
"""


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="only these processors compile kernels")
def test_experts_in_half_precision_leave_no_kernel_for_every_number_of_rows_and_plain_products_would():
    kept = {
        how: int(subprocess.run([sys.executable, "-c", KERNELS, how], capture_output=True, check=True).stdout)
        for how in ("experts", "products")
    }
    assert kept["experts"] < 24 << 20 < 64 << 20 < kept["products"]  # the second is the control
