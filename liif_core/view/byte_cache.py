"""What was computed lately, limited in bytes: the least recently used is dropped first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class ByteCache:
    """A mapping that holds at most ``limit`` bytes. It may be used by several threads.

    A value that alone takes more than the limit is not kept.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.held = 0  # bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The value, which becomes the most recently used one; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of ``size`` bytes, in place of what the key had."""
        with self._lock:
            self._remove(key)
            if size > self.limit:
                return
            while self.held + size > self.limit:
                self._remove(next(iter(self._entries)))
            self._entries[key] = value, size
            self.held += size

    def remove(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drop the entries whose keys are ``wanted``."""
        with self._lock:
            for key in [key for key in self._entries if wanted(key)]:
                self._remove(key)

    def has(self, key: Hashable) -> bool:
        """Whether there is a value, without using it."""
        with self._lock:
            return key in self._entries

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.held -= entry[1]
