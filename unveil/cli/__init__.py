"""The command line: results on stdout or in a file, progress on stderr, an error is one line and an exit code.

0 done    1 replay, verify or parity found a difference    2 an error that says what to do    3 training diverged
130 interrupted
"""

import _thread
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import NoReturn

from unveil.cli.output import note
from unveil.errors import UnveilError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code; no traceback for anything a user can cause."""
    sys.unraisablehook = _interrupt_again
    warnings.showwarning = lambda message, *_: note(f"note: {message}")  # without file and line
    _open_closed()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        where = "the output" if error.filename is None else error.filename
        note(f"unveil: {where}: {error.strerror or error}; check the name, your rights and the free space")
        code = 2
    if code == 130:  # also when the framework has turned an interrupt inside a command into it
        note("interrupted")
    sys.exit(code)


def _open_closed() -> None:
    """Streams that whoever called us has closed lead nowhere, instead of not being there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops an interrupt that falls into a finalizer or an import's callback: bring it up again, outside."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def _run(arguments: Sequence[str] | None) -> int:
    """The exit code of a command."""
    from unveil.cli.app import Abort, UsageProblem, app

    try:
        code = app(None if arguments is None else list(arguments), prog_name="unveil", standalone_mode=False)
    except UnveilError as error:
        return _fail(str(error))
    except UsageProblem as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, in many lines
            note(error.format_message())
            return 2
        return _fail(f"{error.format_message()} (unveil --help shows what there is)")
    except Abort:
        raise KeyboardInterrupt from None
    except MemoryError:
        return _fail("out of memory; ask for a smaller picture, or close other programs")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, without importing it
            raise
        return _fail("out of GPU memory; ask for a smaller picture or use --device cpu")
    return code if isinstance(code, int) else 0


def _fail(message: str) -> int:
    """Print an error in one line; the exit code."""
    note("unveil: " + " ".join(message.split()))
    return 2
