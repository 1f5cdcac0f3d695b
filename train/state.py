"""How far a training has come."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainState:
    """How far a training has come: everything besides tensors that it needs to go on."""

    step: int = 0
    """Updates made."""
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    """Targets trained on."""
    skipped: int = 0
    """Updates left out because fp16 overflowed."""
    seconds: float = 0.0
    """Time spent, over all restarts."""
    validated: bool = False
    """Whether the validation that is due at this step is done."""
    schedule: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    meter: dict[str, float] = field(default_factory=dict)
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    """Results `before` training, the `best` since, and the `last`."""

    @property
    def best_step(self) -> int | None:
        """The step that was validated best; None before there is one."""
        best = self.validation.get("best")
        return int(best["step"]) if best else None
