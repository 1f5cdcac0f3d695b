"""The time that a training still needs: its updates, and the validations between them."""


class RemainingTime:
    """An estimate from the mean duration of an update and that of a validation; both are told as they happen."""

    def __init__(self, total_steps: int, validation_interval: int):
        """
        Args:
            validation_interval: updates from one validation to the next.
        """
        self.total_steps, self.validation_interval = total_steps, validation_interval
        self._updates, self._update_seconds, self._validation_seconds = 0, 0.0, 0.0

    def updated(self, seconds: float) -> None:
        self._updates += 1
        self._update_seconds += seconds

    def validated(self, seconds: float) -> None:
        self._validation_seconds = seconds  # all measure the same split: the last one knows the present speed of the machine

    def seconds(self, step: int) -> float:
        """The time needed after `step` updates."""
        steps = self.total_steps - step
        validations = -(-self.total_steps // self.validation_interval) - step // self.validation_interval
        return steps * self._update_seconds / max(self._updates, 1) + validations * self._validation_seconds
