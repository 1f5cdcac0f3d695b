"""Tasks that leave one Arrow file in the work folder, and beside it, written last, what says that it is whole."""

from pathlib import Path
from typing import Any

from packlm.base import files


class ArrowTask:
    """A task, by its name, whose result is a file of the folder it is given."""

    folder: Path

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.arrow"

    @property
    def done(self) -> Path:
        """The digest of the file, and whatever else the task has to say."""
        return self.folder / f"{self.name}.json"

    def finish(self, about: dict[str, Any]) -> None:
        """Says that the task is done."""
        files.write_json(self.done, about | {"sha256": files.sha256(self.path)})

    def finished(self) -> bool:
        """Whether the task was done before and its file is still as it was."""
        return self.done.exists() and self.path.is_file() and files.read_json(self.done)["sha256"] == files.sha256(self.path)
