"""Where results go: between two comment lines of docs/benchmarks.md, in place of those before."""

import platform
import re
from pathlib import Path

import torch

from unveil.files import write_atomic

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def put(section: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between the marks of a section. Raises ValueError when the document has no such marks."""
    old = document.read_text(encoding="utf-8")
    marks = re.compile(rf"(<!-- {section} -->\n).*?(<!-- end of {section} -->)", re.DOTALL)
    new, found = marks.subn(lambda mark: f"{mark[1]}{text}\n{mark[2]}", old)
    if not found:
        raise ValueError(f"{document}: has no <!-- {section} --> with an end")
    write_atomic(document, new.encode())


def machine() -> str:
    """The GPU, or the processor with its threads, and the versions."""
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {versions}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads, {versions}"
