"""The mean of two backbones of one line of training, weight by weight: `blend.py FIRST SECOND SHARE TARGET`.

SHARE is that of the second; `run.sh` tells which are blended. TARGET is a part in a model's directory; its manifest
follows.
"""

import sys
from pathlib import Path

from safetensors.torch import load_file

from unveil.weights.save import tensor_writer, write_files


def main(first: str, second: str, share: float, target: Path) -> None:
    """Write `(1 - share) * first + share * second`."""
    before, after = load_file(first), load_file(second)
    mixed = {name: before[name].lerp(after[name], share).contiguous() for name in after}
    size = sum(tensor.nbytes for tensor in mixed.values())
    write_files(target.parent, {target.name: tensor_writer(mixed)}, needed=size)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
