"""What a stage records: settings, metrics, tables, figures, files and the model."""

import io
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from packlm.base import json_text
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError
from packlm.tracking.metrics_follower import Point
from packlm.tracking.models import LoggedModel
from packlm.tracking.sender import Sender
from packlm.tracking.spool import Kind, Spool, TrackingRecord

log = logging.getLogger("packlm")


class Recorder:
    """Records a stage; made by `packlm.tracking.stage`. Without a sender it records nothing.

    A record is on the disk when the method returns (`packlm.tracking.spool`), and sent by another process.
    """

    def __init__(self, sender: Sender | None = None, spool: Spool | None = None):
        self.sender, self._spool = sender, spool
        self._broken = False

    def settings(self, values: Mapping[str, Any]) -> None:
        """Records all settings of all stages, on the parent run."""
        self._add("params", run="pipeline", values=flat(values))

    def params(self, values: Mapping[str, Any]) -> None:
        """Records settings; nested ones as `section.key`. MLflow keeps a setting's first value: a later one becomes a tag."""
        self._add("params", run="stage", values=flat(values))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records metrics of this stage."""
        self._points("stage", values, step)

    def summary(self, values: Mapping[str, float]) -> None:
        """Records final metrics on the parent run, where runs are compared."""
        self._points("pipeline", values)

    def follow_metrics(self, path: Path) -> None:
        """Sends a `metrics.jsonl` (see `packlm.tracking.metrics_follower`) as it grows, until the stage ends."""
        if self.sender:
            self.sender.follow(path.resolve())
            self._add("follow", path=str(path.resolve()))

    def follow_again(self) -> None:
        """Counts the lines of the metrics files that an earlier attempt of the stage has followed; they are sent anyway."""
        if self.sender and self._spool:
            for record in self._spool.records:
                if record.do == "follow":
                    self.sender.follow(Path(record.arguments["path"]))

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Records that this stage read a dataset.

        Args:
            digest: digest of its content; MLflow shows the first 32 characters.
            source: its path or address.
            context: its use: "training", "validation", ...
        """
        self._add("dataset", name=name, digest=digest[:32], source=source, context=context)

    def figure(self, name: str, figure: Any) -> None:
        """Records a matplotlib figure as `name`, whose suffix is the image format."""
        if not self.sender:
            return
        image = io.BytesIO()
        try:
            figure.savefig(image, format=Path(name).suffix.removeprefix("."), bbox_inches="tight", dpi=120)
        except Exception as error:  # a figure is never worth a training
            log.warning("tracking: matplotlib failed to render %s: %s", name, error)
        else:
            self._add_content("content", name, image.getvalue())

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Records a table as `name` (`samples/step-000123.json`) for MLflow's table view; replaces one of that name."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self._add_content("table", name, json_text.dumps({"columns": list(columns), "data": rows}).encode())

    def artifact(self, path: Path, folder: str = "") -> None:
        """Records a file, or a folder with its content, below the artifact folder `folder`."""
        self._add("artifact", path=str(Path(path).resolve()), folder=folder)

    def note(self, text: str) -> None:
        """Makes `text` the description of the pipeline's run."""
        self._add("note", text=text)

    def log_model(self, model: LoggedModel) -> str | None:
        """Logs and registers a model, unless a version has its weights already, and waits for it.

        Returns the version, or None if the store did not take it.
        """
        version: str | None = self._ask("log_model", model=TypeAdapter(LoggedModel).dump_python(model, mode="json"))
        return version

    def champion(self, name: str) -> str | None:
        """The version of a registered model with the alias `champion`; empty if none has it, None if the registry does not answer."""
        version: str | None = self._ask("champion", name=name)
        return version

    def set_champion(self, name: str, version: str) -> bool:
        """Moves the alias `champion` to a version; whether the registry did so."""
        return bool(self._ask("set_champion", name=name, version=version))

    def describe_version(self, name: str, version: str, text: str) -> None:
        """Sets the description of a version on its page in the registry (Markdown)."""
        self._add("describe_version", name=name, version=version, text=text)

    def end(self, status: str) -> None:
        """Records the end of the stage; the last record."""
        self._add("end", status=status, time=time.time())

    def _points(self, run: str, values: Mapping[str, float], step: int = 0) -> None:
        points = [Point(key, float(value), time.time(), step) for key, value in values.items()]
        self._add("metrics", run=run, points=[list(point) for point in points])

    def _ask(self, do: str, **arguments: Any) -> Any:
        return self.sender.ask(do, **arguments) if self.sender else None

    def _add_content(self, do: Literal["content", "table"], name: str, content: bytes) -> None:
        if not self._spool:
            return
        try:
            file = self._spool.keep(name, content)
        except PacklmError as error:
            self._warn(error)
        else:
            self._add(do, name=name, file=file)

    def _add(self, do: Kind, **arguments: Any) -> None:
        if not self.sender or not self._spool:
            return
        try:
            self._spool.add(TrackingRecord(do=do, arguments=arguments), self.sender.num_sent)
        except (OSError, ValueError) as error:
            self._warn(error)
        self.sender.wake()

    def _warn(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning(
                "tracking: %s: a record cannot be written and is not going to be in MLflow: %s", self._spool and self._spool.path, reason
            )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `section.key` -> text, without credentials; unset ones are left out."""
    items: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            items |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            items[prefix + key] = without_credentials(str(value))[:6000]  # MLflow's limit
    return items
