"""What a network can be interpolated with: a second distribution of the next id, with a state of its own.

Shapes: B segments, P tokens of all of them end to end, R of them, D width into the softmax, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from packlm.model.recurrence import State


@dataclass(frozen=True)
class ComponentOutput:
    """What a component says after each token of some segments."""

    probabilities: Callable[[slice], Tensor]
    """From some of the tokens to P of every id after each, [R, V] float64; a row of zeros where the component knows nothing yet."""
    final: State
    """The state after each segment."""


class Component(Protocol):
    """A distribution of the next id."""

    state_parts: int
    """Tensors of its state."""

    @property
    def description(self) -> str:
        """For logs and reports."""
        ...

    def zero_state(self, like: Tensor, segments: int) -> State:
        """The state before anything was read: zeros [*, segments, *], on the device and of the type of `like`, or whole numbers."""
        ...

    def read(self, ids: Tensor, rows: Tensor, lengths: np.ndarray, state: State) -> ComponentOutput:
        """Reads segments: ids [P], what the softmax reads after them [P, D], lengths [B]."""
        ...
