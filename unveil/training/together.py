"""Several processes, one run: each learns from rows of its own, and all take the same step with the mean gradient.

PyTorch's threads share one product, and those of a small model are too small to share. Processes share a train step:
two do the rows of two in little more than the time of one.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from torch import distributed, nn

from unveil.errors import TrainingError

PATIENCE = timedelta(minutes=30)  # a peer may be stopped for a while; one that died is noticed at once
FAREWELL = 10.0  # seconds that the others have to end by themselves


@dataclass(frozen=True)
class Together:
    """This process among those of a run. The first one, `rank` 0, writes the log and all files."""

    rank: int = 0
    size: int = 1

    @torch.no_grad()
    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace every floating-point tensor by its mean over the processes, in place.

        Raises TrainingError when another process is gone.
        """
        here = [tensor for tensor in tensors if tensor.is_floating_point()]
        if self.size == 1 or not here:
            return
        line = torch.cat([tensor.flatten() for tensor in here])
        self._sum(line)
        for tensor, mean in zip(here, (line / self.size).split([t.numel() for t in here]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def average_gradients(self, module: nn.Module) -> None:
        """The mean over the processes in every one of them; a parameter without a gradient counts as zeros."""
        if self.size == 1:
            return
        learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.average(parameter.grad for parameter in learning if parameter.grad is not None)

    def any(self, here: bool) -> bool:
        """Whether it is so in one of the processes."""
        if self.size == 1:
            return here
        count = torch.tensor(float(here))
        self._sum(count)
        return bool(count)

    def _sum(self, tensor: torch.Tensor) -> None:
        try:
            distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise TrainingError(
                f"another process of this run is gone ({str(error).splitlines()[0]}); "
                "the same command goes on from the last checkpoint"
            ) from None


ALONE = Together()
"""A run in one process."""


@contextmanager
def together(size: int, work: Callable[[Together, Path], object], recipe: Path) -> Iterator[Together]:
    """While inside, `size - 1` other processes do `work(their place, recipe)`, and this one is the first.

    They are started anew, so `work` must be a function of a module.
    """
    if size == 1:
        yield ALONE
        return
    with tempfile.TemporaryDirectory() as meeting:
        context = multiprocessing.get_context("spawn")
        others, signs = [], []
        for rank in range(1, size):
            sign, show = context.Pipe(duplex=False)
            args = (work, recipe, Together(rank, size), meeting, show)
            others.append(context.Process(target=_follow, args=args, daemon=True))
            signs.append(sign)
        for process in others:
            process.start()
        try:
            for process, sign in zip(others, signs, strict=True):
                if sign not in wait([sign, process.sentinel]):
                    raise TrainingError("another process of this run ended as it began; what it said stands above")
            with _joined(Together(0, size), meeting) as place:
                yield place
        finally:
            for process in others:
                process.join(timeout=FAREWELL)
                process.kill()
                process.join()


def _follow(
    work: Callable[[Together, Path], object], recipe: Path, place: Together, meeting: str, show: Connection
) -> None:
    """What the other processes do. When the first one is gone they end without a word: it tells what happened."""
    show.send(True)  # here, with all that is needed
    try:
        with _joined(place, meeting):
            work(place, recipe)
    except TrainingError:
        raise SystemExit(1) from None


@contextmanager
def _joined(place: Together, meeting: str) -> Iterator[Together]:
    method = f"file://{meeting}/meeting"
    distributed.init_process_group("gloo", method, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    try:
        yield place
    finally:
        distributed.destroy_process_group()
