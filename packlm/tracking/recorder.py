"""What a stage says about itself: settings, numbers, tables, figures, files and the model. `packlm.tracking` sends it on."""

import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packlm.base.credentials import without_credentials
from packlm.tracking.metrics_reader import Point
from packlm.tracking.outbox import Outbox

log = logging.getLogger("packlm")


class Recorder:
    """What a stage says about itself. Made by `stage`; without a courier it says nothing."""

    def __init__(self, courier: "Outbox[Any] | None" = None):
        self._courier = courier

    def params(self, values: Mapping[str, Any]) -> None:
        """Records settings; nested ones as `section.key`. One recorded before with another value stays, the new value becomes a tag."""
        flattened = flat(values)
        self._post(lambda runs: runs.params(runs.child, flattened))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Records numbers of this stage."""
        points = [Point(key, float(value), time.time(), step) for key, value in values.items()]
        self._post(lambda runs: runs.numbers(runs.child, points))

    def summary(self, values: Mapping[str, float]) -> None:
        """Records final numbers on the parent run, where runs are compared."""
        points = [Point(key, float(value), time.time(), 0) for key, value in values.items()]
        self._post(lambda runs: runs.numbers(runs.parent, points))

    def mirror(self, path: Path) -> None:
        """Follows a `metrics.jsonl` (see `packlm.tracking.metrics_reader`) until the stage ends."""
        if self._courier:
            self._courier.follow(path)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Records that this stage read a dataset.

        Args:
            digest: its content's digest; MLflow shows the first 32 characters.
            source: where it is.
            context: what for: "training", "validation", ...
        """
        self._post(lambda runs: runs.dataset(name, digest[:32], source, context))

    def figure(self, name: str, figure: Any) -> None:
        """Records a matplotlib figure as `name` (its ending says how it is drawn, say `.png`)."""
        if not self._courier:
            return
        drawn = io.BytesIO()
        try:
            figure.savefig(drawn, format=Path(name).suffix.removeprefix("."), bbox_inches="tight", dpi=120)
        except Exception as error:  # a figure is never worth a training
            log.warning("tracking: %s could not be drawn: %s", name, error)
        else:
            self._post(lambda runs: runs.content(name, drawn.getvalue()))

    def table(self, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Records a table as `name` (`samples/step-000123.json`), for MLflow's table view; one of that name is replaced."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        text = json.dumps({"columns": list(columns), "data": rows}, ensure_ascii=False)
        self._post(lambda runs: runs.table(name, text))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Records a file, or a folder with all that is in it, under `folder`."""
        self._post(lambda runs: runs.artifact(Path(path), folder))

    def log_model(
        self,
        folder: Path,
        code: Path,
        requirements: list[str],
        code_paths: list[Path],
        name: str,
        column: str,
        parameters: Mapping[str, Any],
        options: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> str | None:
        """Records a model folder as an MLflow model made from code, and registers it, unless a version has these weights. Waits for it.

        Args:
            folder: our model folder; `declare_model`'s `load` gets a copy of it.
            code: the file that calls `declare_model`.
            requirements: pip requirements of whoever loads it.
            code_paths: packages that go with it.
            name: name in the registry.
            column: the column of text that `predict` answers.
            parameters: what `predict` accepts as `params`, with the defaults; MLflow drops all others.
            options: the `model_config` that `load` gets, unless whoever opens the model says otherwise.
            tags: of the version; `weights`, their digest, tells versions apart.

        Returns the version, new or not, or None if it could not be recorded.
        """
        call = (folder, code, requirements, code_paths, name, column, dict(parameters), dict(options), dict(tags))
        version: str | None = self._ask(lambda runs: runs.model(*call))
        return version

    def champion(self, name: str) -> str | None:
        """The version of a registered model that has the alias `champion`; empty where none has, None if the registry does not say."""
        version: str | None = self._ask(lambda runs: runs.champion(name))
        return version

    def crown(self, name: str, version: str) -> bool:
        """Moves the alias `champion` to a version; whether that was done."""
        return bool(self._ask(lambda runs: runs.crown(name, version)))

    def describe(self, name: str, version: str, text: str) -> None:
        """What the registry's page says of a version (Markdown)."""
        self._post(lambda runs: runs.describe(name, version, text))

    def _ask(self, action: Callable[[Any], Any]) -> Any:
        return self._courier.wait_for(self._courier.post(action)) if self._courier else None

    def _post(self, action: Callable[[Any], Any]) -> None:
        if self._courier:
            self._courier.post(action)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as `section.key` -> text, without credentials; those that are not set are left out."""
    items: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            items |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            items[prefix + key] = without_credentials(str(value))[:6000]  # MLflow's limit
    return items
