"""The training loop: one for every objective. Resumes bit for bit, stops cleanly on a signal, refuses NaN."""

import copy
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from unveil.config import dump
from unveil.config.run import RunConfig
from unveil.errors import DivergenceError, TrainingError, UnveilError
from unveil.training.checkpoint import (
    Snapshot,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from unveil.training.optim import build_optimizer, learning_rate, set_rate, update_average
from unveil.training.together import ALONE, Together


class Objective(Protocol):
    """What a run learns. Its data depends on seed and batch number only, so a resumed run sees the same."""

    @property
    def module(self) -> nn.Module:
        """Everything that a checkpoint must hold."""

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """Loss of each task's rows number `step` with numbers to log; gradients add up.

        With several processes a train step takes as many numbers, one for each.
        """

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """What changes without gradients: codebook means, router biases."""

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The parts that ship, by name, out of a copy of `module` that holds the running mean of the weights."""


Ship = Callable[[dict[str, nn.Module]], None]
"""Writes parts to where the next run, and the user, reads them."""


def train(run: RunConfig, objective: Objective, ship: Ship, place: Together = ALONE) -> bool:
    """Train to the end, or to a signal. Returns whether the run is complete. All processes of a run call this.

    Raises TrainingError on a loss or gradient that is not finite (nothing is overwritten then) and on a damaged or
    foreign run directory.
    """
    torch.set_num_threads(run.threads)
    optimizer = build_optimizer(objective.module, run.optim)
    average = {k: v.detach().clone() for k, v in objective.module.state_dict().items()}
    leads = place.rank == 0
    first = _resume(run, objective.module, optimizer, average, say=leads)
    if leads and first == 0 and run.start == "parts":  # what it starts from: shipping writes over those parts
        _save(run, objective.module, optimizer, average, 0)
    with _stop_signal() as stopped, _Log(run.directory / "log.jsonl", first) if leads else nullcontext() as log:
        for step in range(first, run.steps):
            numbers = train_step(run, objective, optimizer, step, place)
            update_average(average, objective.module, run.optim.average, step)
            if log is not None:
                log.write(step, run, numbers)
            done, stop = step + 1, place.any(stopped())
            last = stop or done == run.steps
            if leads and (last or done % run.checkpoint_every == 0):
                with _survived(last):  # before the checkpoint: a run that is complete has shipped
                    _ship(objective, average, ship)
                with _survived(last):
                    _save(run, objective.module, optimizer, average, done)
            if stop:
                if leads:
                    print(f"{run.name}: stopped at step {done}; the same command goes on from there", file=sys.stderr)
                return done == run.steps
    return True


def train_step(
    run: RunConfig, objective: Objective, optimizer: torch.optim.Optimizer, step: int, place: Together = ALONE
) -> dict[str, float]:
    """One train step: gradients of all batches, clip, update. The numbers to log are those of this process."""
    batch = (run.samples_from + step) * place.size + place.rank
    generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step * place.size + place.rank)
    rate = learning_rate(step, run.steps, run.optim)
    set_rate(optimizer, rate)
    optimizer.zero_grad(set_to_none=True)
    numbers: dict[str, float] = {"lr": rate}
    for loss, logged in objective.losses(batch, generator):
        loss.backward()
        numbers |= logged
        numbers["loss"] = numbers.get("loss", 0.0) + float(loss.detach())
    place.average_gradients(objective.module)
    norm = float(nn.utils.clip_grad_norm_(objective.module.parameters(), run.optim.clip))
    if not math.isfinite(numbers["loss"]) or not math.isfinite(norm):
        raise DivergenceError(f"step {step}: loss {numbers['loss']}, gradient norm {norm}; weights are as before it")
    optimizer.step()
    objective.after(step, run.steps, generator)
    place.average(objective.module.buffers())
    return numbers | {"norm": norm}


def _resume(
    run: RunConfig, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor], *, say: bool
) -> int:
    """Load the newest complete checkpoint, if any; the first step to do."""
    snapshot, passed = newest_checkpoint(run.directory)
    for line in passed if say else ():
        print(f"passed over: {line}", file=sys.stderr)
    if snapshot is None:
        return 0
    try:
        module.load_state_dict(snapshot.weights)
        restore_optimizer(optimizer, snapshot.optimizer)
    except (RuntimeError, ValueError) as error:
        found = f"holds checkpoints of another run ({str(error).splitlines()[0]})"
        raise TrainingError(f"{run.directory}: {found}; use a new directory") from None
    for name, value in snapshot.average.items():
        average[name].copy_(value)
    if snapshot.step > run.steps:
        done = f"has done {snapshot.step} steps, more than the {run.steps} of the recipe"
        raise TrainingError(f"{run.directory}: {done}; set steps to at least {snapshot.step} or use a new directory")
    changed = "; the recipe has changed since" if snapshot.run != dump(run) else ""
    goes_on = "is complete at" if snapshot.step == run.steps else "goes on from"
    if say:
        print(f"{run.name}: {goes_on} step {snapshot.step} of {run.steps}{changed}", file=sys.stderr)
    return snapshot.step


def _save(
    run: RunConfig, module: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, torch.Tensor], step: int
) -> None:
    snapshot = Snapshot(step, module.state_dict(), average, optimizer_tensors(optimizer), dump(run))
    save_checkpoint(run.directory, snapshot, run.keep)


def _ship(objective: Objective, average: dict[str, torch.Tensor], ship: Ship) -> None:
    averaged = copy.deepcopy(objective.module)
    averaged.load_state_dict(average)
    ship(objective.parts(averaged))


@contextmanager
def _survived(last: bool) -> Iterator[None]:
    """While inside, a full disk is reported and training goes on with the older files intact, except at the end."""
    try:
        yield
    except UnveilError as error:
        if last:
            raise
        print(f"{error}; tried again at the next checkpoint", file=sys.stderr)


@contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """While inside, SIGINT and SIGTERM ask for a stop after the present step instead of breaking it."""
    asked: list[int] = []
    before = {s: signal.signal(s, lambda number, _: asked.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """JSON lines, one every `log_every` steps; lines after the resumed step are dropped first."""

    def __init__(self, path: Path, first: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if _step(path, line) <= first]
        aside = path.with_suffix(".tmp")
        aside.write_text("".join(kept), encoding="utf-8")
        os.replace(aside, path)  # a kill now loses no line
        self._path, self._file = path, path.open("a", encoding="utf-8")
        self._start, self._first = time.monotonic(), first

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):
            self._file.close()

    def write(self, step: int, run: RunConfig, numbers: dict[str, float]) -> None:
        """One line to the file and to stderr."""
        if (step + 1) % run.log_every and step + 1 != run.steps:
            return
        seconds = (time.monotonic() - self._start) / (step + 1 - self._first)
        line = {"step": step + 1, **{k: round(v, 6) for k, v in numbers.items()}, "step_seconds": round(seconds, 4)}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:  # it stays in the buffer for the next try
            print(f"{self._path}: not written ({error.strerror}); tried again with the next line", file=sys.stderr)
        shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        left = seconds * (run.steps - step - 1)
        speed = f"{seconds:.3g} s/step  {left / 60:.0f} min left"
        print(f"{run.name} {step + 1}/{run.steps}  {shown}  {speed}", file=sys.stderr)


def _step(path: Path, line: str) -> int:
    """The step of a line of a log."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        raise TrainingError(f"{path}: not the log of a run; move it away, and the run goes on with a new one") from None


def _lines(path: Path) -> list[str]:
    """The complete lines of a log; a last line cut off by a kill is dropped."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
