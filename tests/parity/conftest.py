"""The command inside this process, and copies of the golden directories to damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from unveil.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def having(self, status: str) -> list[str]:
        """Names of the cases with this verdict."""
        return [line.split("  ")[0] for line in self.lines if f"  {status}  " in line]


@pytest.fixture
def parity(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `unveil parity` with these arguments."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as left:
            main(["parity", *map(str, arguments)])
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Outcome(left.value.code, printed.out, printed.err)

    return run


class Copy:
    """A golden directory of one's own; with names, only these cases of it."""

    def __init__(self, path: Path, source: str, names: list[str] | None = None) -> None:
        shutil.copytree(GOLDEN / source, path)
        self.path = path
        self.manifest: Any = json.loads((path / "manifest.json").read_text())
        self.arrays = load_file(path / "goldens.safetensors")
        if names is not None:
            self.manifest["cases"] = [case for case in self.manifest["cases"] if case["name"] in names]

    def case(self, name: str) -> Any:
        return next(case for case in self.manifest["cases"] if case["name"] == name)

    def write(self) -> Path:
        (self.path / "manifest.json").write_text(json.dumps(self.manifest))
        save_file(self.arrays, self.path / "goldens.safetensors")
        return self.path


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Copy]:
    return lambda source, names=None: Copy(tmp_path / "golden", source, names)
