"""The base class of the tasks of all steps."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from packlm.base import completion


class Task(ABC):
    """A unit of work, complete once its record (`packlm.base.completion`) is written. Pickled for other processes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in messages, unique in the step."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Approximate bytes of text that it reads."""

    folder: Path
    """The folder of the record, and of an output that is one Arrow file."""

    @property
    def record(self) -> Path:
        """The file that is written last."""
        return self.folder / f"{self.name}.json"

    @property
    def path(self) -> Path:
        """The output of a task that writes one Arrow file."""
        return self.folder / f"{self.name}.arrow"

    def inputs(self) -> dict[str, Any]:
        """What the outputs depend on, apart from what the key of the work folder tells already."""
        return {}

    def is_complete(self) -> bool:
        """Whether the outputs are there, unchanged, and made from the same inputs."""
        return completion.is_complete(self.record, self.inputs())

    def details(self) -> dict[str, Any]:
        """The details in the record."""
        return completion.details(self.record)
