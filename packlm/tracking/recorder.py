"""What a stage records: settings, metrics, tables, figures, files and the model."""

import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packlm.base.credentials import without_credentials
from packlm.tracking import models
from packlm.tracking.metrics_follower import Point
from packlm.tracking.models import LoggedModel
from packlm.tracking.outbox import Outbox

log = logging.getLogger("packlm")


class Recorder:
    """Records a stage; made by `packlm.tracking.stage`. Without an outbox it records nothing."""

    def __init__(self, outbox: Outbox | None = None):
        self._outbox = outbox

    def params(self, values: Mapping[str, Any]) -> None:
        """Records settings; nested ones as `section.key`. MLflow keeps a setting's first value: a later one becomes a tag."""
        flattened = flat(values)
        self._post(lambda runs: runs.params(runs.child, flattened))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records metrics of this stage."""
        points = [Point(key, float(value), time.time(), step) for key, value in values.items()]
        self._post(lambda runs: runs.metrics(runs.child, points))

    def summary(self, values: Mapping[str, float]) -> None:
        """Records final metrics on the parent run, where runs are compared."""
        points = [Point(key, float(value), time.time(), 0) for key, value in values.items()]
        self._post(lambda runs: runs.metrics(runs.parent, points))

    def follow_metrics(self, path: Path) -> None:
        """Sends a `metrics.jsonl` (see `packlm.tracking.metrics_follower`) as it grows, until the stage ends."""
        if self._outbox:
            self._outbox.follow(path)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Records that this stage read a dataset.

        Args:
            digest: digest of its content; MLflow shows the first 32 characters.
            source: its path or address.
            context: its use: "training", "validation", ...
        """
        self._post(lambda runs: runs.dataset(name, digest[:32], source, context))

    def figure(self, name: str, figure: Any) -> None:
        """Records a matplotlib figure as `name`, whose suffix is the image format."""
        if not self._outbox:
            return
        image = io.BytesIO()
        try:
            figure.savefig(image, format=Path(name).suffix.removeprefix("."), bbox_inches="tight", dpi=120)
        except Exception as error:  # a figure is never worth a training
            log.warning("tracking: matplotlib failed to render %s: %s", name, error)
        else:
            self._post(lambda runs: runs.content(name, image.getvalue()))

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Records a table as `name` (`samples/step-000123.json`) for MLflow's table view; replaces one of that name."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        text = json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False)
        self._post(lambda runs: runs.table(name, text))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Records a file, or a folder with its content, below the artifact folder `folder`."""
        self._post(lambda runs: runs.artifact(Path(path), folder))

    def log_model(self, model: LoggedModel) -> str | None:
        """Logs and registers a model, unless a version has its weights already, and waits for it.

        Returns the version, or None if the store did not take it.
        """
        version: str | None = self._ask(lambda runs: models.log_model(runs.client, runs.uri, runs.experiment, runs.child, model))
        return version

    def champion(self, name: str) -> str | None:
        """The version of a registered model with the alias `champion`; empty if none has it, None if the registry does not answer."""
        version: str | None = self._ask(lambda runs: models.champion(runs.client, name))
        return version

    def set_champion(self, name: str, version: str) -> bool:
        """Moves the alias `champion` to a version; whether the registry did so."""
        return bool(self._ask(lambda runs: models.set_champion(runs.client, name, version)))

    def describe_version(self, name: str, version: str, text: str) -> None:
        """Sets the description of a version on its page in the registry (Markdown)."""
        self._post(lambda runs: runs.client.update_model_version(name, version, text))

    def _ask(self, action: Callable[[Any], Any]) -> Any:
        return self._outbox.wait_for(self._outbox.post(action)) if self._outbox else None

    def _post(self, action: Callable[[Any], Any]) -> None:
        if self._outbox:
            self._outbox.post(action)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `section.key` -> text, without credentials; unset ones are left out."""
    items: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            items |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            items[prefix + key] = without_credentials(str(value))[:6000]  # MLflow's limit
    return items
