"""An array that grows at its end: now and then it moves to twice the room, and not each time."""

import numpy as np


class GrowingArray:
    """Values of one type, in one dimension."""

    def __init__(self, values: np.ndarray):
        self._room, self._size = values, len(values)

    @property
    def values(self) -> np.ndarray:
        """All that is there now, in order: a view."""
        return self._room[: self._size]

    def add(self, values: np.ndarray) -> None:
        """Adds values of the same type at the end."""
        size = self._size + len(values)
        if size > len(self._room):
            self._room = np.concatenate([self.values, np.empty(max(size, 2 * self._size) - self._size, self._room.dtype)])
        self._room[self._size : size] = values
        self._size = size

    def drop(self, count: int) -> None:
        """Drops the last values. Whoever has a view of them may look at it until something is added."""
        self._size -= count
