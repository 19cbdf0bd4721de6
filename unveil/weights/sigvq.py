"""`sigvq_embedding.pt` of the release -> safetensors, in a process of its own that may use little and is then gone.

A torch file is a pickle. `weights_only` admits tensors alone, but it is the one format here that has ever run code, so
no other module opens it, and this file is also the script that the separate process runs (it imports no other part of
unveil).
"""

import subprocess
import sys
import zipfile
from pathlib import Path

NAMES = frozenset(
    {
        "prior_token_embedding.weight",
        "prior_projector.net.0.proj.weight",
        "prior_projector.net.0.proj.bias",
        "prior_projector.net.2.weight",
        "prior_projector.net.2.bias",
    }
)
"""The five tensors of the file."""

LARGEST = 1 << 30  # bytes; the released file has 402,688,449
_PATIENCE = 600  # seconds


def convert_sigvq(source: Path, target: Path) -> None:
    """Write the tensors of a `.pt` file as safetensors, whole or not at all; names, shapes and dtypes stay.

    Raises WeightsError with the reason when the file is too large or is anything but those five tensors.
    """
    from unveil.errors import WeightsError

    if not source.is_file():
        raise WeightsError(f"{source}: missing; copy or download it again")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        done = subprocess.run(
            [sys.executable, "-P", __file__, str(source), str(temporary)],
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise WeightsError(f"{source}: cannot be converted ({said}); download it again")
        temporary.replace(target)
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{source}: cannot be converted (took over {_PATIENCE} s); download it again") from None
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written ({error.strerror}); free some space") from None
    finally:
        temporary.unlink(missing_ok=True)


def _convert(source: Path, target: Path) -> str | None:
    """Do it, in this process; the reason when it cannot be done."""
    import torch
    from safetensors.torch import save_file

    size = source.stat().st_size
    if not zipfile.is_zipfile(source):
        return "not a torch file"
    with zipfile.ZipFile(source) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if max(size, unpacked) > LARGEST:
        return f"{max(size, unpacked)} bytes, at most {LARGEST} are read"
    state = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or set(state) != NAMES:
        return f"must hold just {', '.join(sorted(NAMES))}"
    floats = all(isinstance(t, torch.Tensor) and t.is_floating_point() and not t.is_sparse for t in state.values())
    if not floats or sum(t.nbytes for t in state.values()) > LARGEST:
        return "must hold plain float tensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, target)
    return None


if __name__ == "__main__":
    try:
        problem = _convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # whatever a hostile file makes torch raise is one line here
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    sys.exit(problem)
