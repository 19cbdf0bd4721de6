"""Who waits, and in which order."""

import bisect
from collections.abc import Iterator

from unveil.engine.request import Handle
from unveil.errors import BusyError


class Queue:
    """A bounded queue: the highest priority first, then first come, first served."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: list[Handle] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._waiting))

    def push(self, handle: Handle) -> None:
        """Wait. Raises BusyError when the queue is full."""
        if len(self._waiting) >= self.limit:
            raise BusyError(f"queue full: {len(self._waiting)} of {self.limit} requests are waiting; try again later")
        bisect.insort(self._waiting, handle, key=lambda h: (-h.request.priority, h.number))

    @property
    def first(self) -> Handle | None:
        """The next one, who waits until removed; nobody overtakes it."""
        return self._waiting[0] if self._waiting else None

    def remove(self, handle: Handle) -> None:
        """Wait no longer."""
        self._waiting.remove(handle)
