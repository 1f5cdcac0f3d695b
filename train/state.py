"""The state of a training: everything besides tensors that is needed to resume it."""

from pydantic import BaseModel, Field

from .progress.metrics import MetricSums


class _State(BaseModel, extra="forbid", strict=True):
    """Read back from `state.json`, where a value of a wrong type or an unknown key is an error."""


class ValidationResult(_State):
    """A measurement of the validation split."""

    loss: float
    """Nats per token."""
    perplexity: float
    tokens: int
    step: int


class ValidationResults(_State):
    before: ValidationResult | None = None
    """Before the first update."""
    best: ValidationResult | None = None
    last: ValidationResult | None = None


class ScheduleState(_State):
    """See `optim.schedule.Schedule`."""

    best: float | None = None
    reductions: int = 0
    since_best: int = 0


class AverageState(_State):
    """See `optim.averaging.Average`."""

    count: int = 0
    losses: list[float] = []


class TrainState(_State):
    """How far a training has come."""

    step: int = 0
    """Updates so far."""
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    """Targets trained on."""
    skipped: int = 0
    """Updates skipped because fp16 overflowed."""
    seconds: float = 0.0
    """Time spent, over all restarts."""
    validated: bool = False
    """Whether the validation that is due at this step is done."""
    validation: ValidationResults = Field(default_factory=ValidationResults)
    schedule: ScheduleState = Field(default_factory=ScheduleState)
    average: AverageState = Field(default_factory=AverageState)
    precision: dict[str, int | float] = {}
    """State of the gradient scaler (fp16)."""
    metric_sums: MetricSums = Field(default_factory=MetricSums)

    @property
    def best_step(self) -> int | None:
        """Step of the best validation; None before the first."""
        return self.validation.best.step if self.validation.best else None
