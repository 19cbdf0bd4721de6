"""Words that a caller chooses among."""

import difflib
from typing import Literal, TypeVar, get_args

from unveil.errors import RequestError

Behavior = Literal["sane", "official"]
"""Whether quirks of the released code are reproduced (docs/official-differences.md)."""

Mode = Literal["normal", "thinking"]
"""Whether a plan in words comes before the picture."""

T = TypeVar("T", bound=str)


def chosen(name: str, value: T, choices: object) -> T:
    """The value if it is one of a Literal's words; else RequestError with the nearest one."""
    words = get_args(choices)
    if value not in words:
        near = difflib.get_close_matches(str(value), words, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {' and '.join(words)}"
        raise RequestError(f"no {name} '{value}'; {hint}")
    return value
