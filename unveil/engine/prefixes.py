"""Beginnings that several requests have in common (the system line, a source picture): computed once, then copied."""

import threading
from collections import OrderedDict

from unveil.shapes import Float, Tensor

Key = tuple[str, int, tuple[int, ...]]


class Prefixes:
    """Keys and values of finished prompt blocks, by owner and by all ids up to the end of the block.

    An entry is found only by the owner who made it: nobody can learn from the time an answer takes what others asked.
    Where the borders of blocks lie (the padding of a branch) is part of the key, since it decides what sees what.
    The least recently used entries make room. Several threads may use it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.bytes = 0
        self.hits = 0
        self._entries: OrderedDict[Key, Float[Tensor, "layers 2 KV n head"]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Key) -> Float[Tensor, "layers 2 KV n head"] | None:
        """The block of that key."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                self.hits += 1
            return found

    def keep(self, key: Key, block: Float[Tensor, "layers 2 KV n head"]) -> None:
        """Remember a copy of the block, and forget what has not been used for longest."""
        with self._lock:
            if key in self._entries or block.nbytes > self.limit:
                return
            self._entries[key] = block.clone()
            self.bytes += block.nbytes
            while self.bytes > self.limit:
                self.bytes -= self._entries.popitem(last=False)[1].nbytes
