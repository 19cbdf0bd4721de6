"""The command line, run inside this process: what it printed and how it left."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from unveil.cli import main


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def unveil(capsys) -> Callable[..., Outcome]:
    """Run `unveil` with these arguments."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return Outcome(left.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def refused(unveil) -> Callable[..., str]:
    """Run `unveil`, which must leave with code 2 and one line; that line."""

    def run(*arguments: object) -> str:
        outcome = unveil(*arguments)
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert outcome.err.startswith("unveil: ") and outcome.err.count("\n") == 1, outcome.err
        return outcome.err

    return run


def lines(text: str) -> Sequence[str]:
    return text.splitlines()
