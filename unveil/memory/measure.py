"""What is really used: the peak of a GPU's memory as PyTorch gave it out, or of the process as the system sees it."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

_MMAP_THRESHOLD, _LARGE = -3, 1 << 17  # glibc's option, and the bytes from which blocks are pages of their own
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def is_process(device: torch.device) -> bool:
    """Whether a device shares its memory with the process: all but CUDA ones (Apple's GPUs do)."""
    return device.type != "cuda"


class Meter:
    """The peak from its making on: bytes that PyTorch gave out on a GPU, or the process's resident size."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if is_process(device):
            self.base = held_by_process()
            with suppress(OSError):  # elsewhere it is that of the whole life of the process
                _RESET.write_text("5")  # Linux: the highest resident size is counted anew
        else:
            torch.cuda.reset_peak_memory_stats(device)
            self.base = torch.cuda.memory_allocated(device)

    def peak(self) -> int:
        """Bytes, with what was there before."""
        if not is_process(self.device):
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") if _STATUS.exists() else _highest()


def held_by_process() -> int:
    """The resident size of this process now; where the system does not say, the highest so far."""
    return _status("VmRSS") if _STATUS.exists() else _highest()


def return_freed() -> None:
    """Let freed blocks of 128 KiB and more go back to the system at once, in this process from now on.

    glibc raises that size with the blocks that it sees freed, up to 32 MiB, and then keeps holes between what lives: a
    picture left up to a tenth of a GB so. Other C libraries keep their ways.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of the main memory what can be had without swapping."""
    if not is_process(device):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _highest() -> int:
    """The highest resident size of this process's life."""
    import resource  # not on every system

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
