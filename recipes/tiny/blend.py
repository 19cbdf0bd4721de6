"""The mean of two backbones of one line of training, weight by weight: `blend.py FIRST SECOND SHARE TARGET`.

Between the end of stage 4 and the end of stage 5: SHARE of the second. What ships has 0.6 of it.
"""

import sys

from safetensors.torch import load_file, save_file


def main(first: str, second: str, share: float, target: str) -> None:
    """Write `(1 - share) * first + share * second`."""
    before, after = load_file(first), load_file(second)
    save_file({name: before[name].lerp(after[name], share).contiguous() for name in after}, target)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
