"""Runs side by side: the settings in which they differ, their numbers, and which of the numbers may be compared.

A run is its folder (`runs/NAME`, or NAME alone), read without MLflow, or one that MLflow has, by id or name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from packlm import dataset, tracking
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Tracking
from packlm.tracking.run_record import Record

SECTIONS = ("corpus", "tokenizer", "model", "train", "evaluate", "run.seed")
"""Settings that a result follows from."""
NOT_SET = "-"


@dataclass(frozen=True)
class ComparedRun:
    """What there is to compare of a run."""

    name: str
    settings: dict[str, str]
    knows_all: bool
    """Whether a setting that is missing is not set; otherwise nothing is known of it."""
    numbers: dict[str, float]
    reports: dict[str, dict[str, Any]]
    """By split."""


def open_run(word: str, store: Tracking) -> ComparedRun:
    """The run that a word of the command line means; `RequestError` if there is none."""
    for folder in (Path(word), Path("runs") / word):
        if any((folder / name).exists() for name in ("train/settings.json", "model/config.json")):
            return of_folder(folder)
    return of_record(tracking.read_run(word, store))


def of_folder(folder: Path) -> ComparedRun:
    """The run of a folder, from what training and evaluation left there."""
    names = ("train/settings.json", "model/config.json", "train/summary.json")
    recipe, about, summary = (files.read_json_if_exists(folder / name) for name in names)
    recipe = {"corpus": about.get("text", {}), "model": about.get("model", {})} | recipe
    settings = {f"{section}.{key}": value for section, values in recipe.items() for key, value in values.items()}
    numbers: dict[str, float] = {key: summary[key] for key in ("epochs", "steps", "tokens", "seconds") if key in summary}
    if best := (summary.get("validation") or {}).get("best"):
        numbers["validation"] = best["perplexity"]
    if (folder / "model/model.safetensors").exists():
        numbers["parameters"] = _num_parameters(folder / "model/model.safetensors")
    reports = [files.read_json(path) for split in dataset.SPLITS if (path := folder / "evaluate" / f"{split}.json").exists()]
    stated = {key: NOT_SET if value is None else str(value) for key, value in settings.items() if _counts(key)}
    return ComparedRun(folder.resolve().name, stated, False, numbers, {report["split"]: report for report in reports})


def of_record(record: Record) -> ComparedRun:
    """The run that MLflow has."""
    names = {
        "parameters": "parameters", "train/epoch": "epochs", "train/steps": "steps", "train/tokens": "tokens", "train/seconds": "seconds",
        "validation/perplexity_best": "validation",
    }  # fmt: skip
    numbers = {ours: record.metrics[theirs] for theirs, ours in names.items() if theirs in record.metrics}
    settings = {key: value for key, value in record.params.items() if _counts(key)}
    return ComparedRun(record.name, settings, True, numbers, {report["split"]: report for report in record.reports})


def table(runs: Sequence[ComparedRun]) -> str:
    """The comparison, for reading."""
    lines: list[tuple[str, ...]] = [("", *(run.name for run in runs)), ("settings",)]
    lines += [(f"  {key}", *values) for key, values in differing(runs)] or [("  no difference",)]
    lines += [("training",), *_numbers(runs)]
    for split in dataset.SPLITS:
        reports = [run.reports.get(split) for run in runs]
        if any(reports):
            lines += [(split,), *(_row(name, reports, value) for name, value in _REPORTED)]
            lines += [(f"  ! {complaint}",) for complaint in complaints([report for report in reports if report])]
    columns = [line for line in lines if len(line) > 1]
    widths = [max(len(line[column]) for line in columns) for column in range(len(runs) + 1)]
    aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() if len(line) > 1 else line[0] for line in lines)
    return "\n".join(aligned)


def differing(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) of the settings that differ, among those that are known of every run."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    known = [key for key in keys if all(run.knows_all or key in run.settings for run in runs)]
    values = [(key, [run.settings.get(key, NOT_SET) for run in runs]) for key in known]
    return [(key, found) for key, found in values if len(set(found)) > 1]


def complaints(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What must not be compared in the reports of a split, and what may be instead."""
    found = []
    if len({(report["context"], report["streams"]) for report in reports}) > 1:
        found.append("the contexts differ: a prediction that saw more is easier; measure all with one --evaluate.context")
    if any("ids_digest" not in report for report in reports):
        return ["a report of an older version is among them: run the stage evaluate again"]
    if len({report["tokenizer_digest"] for report in reports}) == 1:
        if len({report["ids_digest"] for report in reports}) > 1:
            found.append("not the same text: none of these numbers may be compared")
    elif len({(report["documents"], report["words"], report["bytes"]) for report in reports}) > 1:
        found.append("not the same text (documents, words or bytes differ): none of these numbers may be compared")
    elif any(report["bits_per_byte"] is None for report in reports):
        found.append("the tokenizers differ and not all keep the whole text: compare per word, with an eye on the unknown tokens")
    else:
        found.append("the tokenizers differ: compare bits per byte, not perplexity per token")
    return found


_REPORTED: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("tokens", lambda report: f"{report['tokens']:,}"),
    ("context", lambda report: report["context"]),
    ("perplexity", lambda report: f"{report['perplexity']:,.2f}"),
    ("per word", lambda report: f"{report['perplexity_per_word']:,.2f}"),
    ("bits per byte", lambda report: f"{report['bits_per_byte']:.4f}" if report["bits_per_byte"] is not None else NOT_SET),
    ("unknown tokens", lambda report: f"{report['unknown_rate']:.2%}"),
)


def _numbers(runs: Sequence[ComparedRun]) -> list[tuple[str, ...]]:
    rows: tuple[tuple[str, Callable[[dict[str, float]], str]], ...] = (
        ("parameters", lambda numbers: f"{numbers['parameters']:,.0f}"),
        ("epochs", lambda numbers: f"{numbers['epochs']:.2f}"),
        ("steps", lambda numbers: f"{numbers['steps']:,.0f}"),
        ("minutes", lambda numbers: f"{numbers['seconds'] / 60:,.1f}"),
        ("tokens/s", lambda numbers: f"{numbers['tokens'] / numbers['seconds']:,.0f}"),
        ("best validation", lambda numbers: f"{numbers['validation']:,.2f}"),
    )
    return [_row(name, [run.numbers for run in runs], value) for name, value in rows]


def _row(name: str, values: Sequence[Any], shown: Callable[[Any], str]) -> tuple[str, ...]:
    """A row of the table; `-` where a run lacks what is shown."""
    cells = []
    for value in values:
        try:
            cells.append(shown(value or {}))
        except KeyError:
            cells.append(NOT_SET)
    return (f"  {name}", *cells)


def _counts(key: str) -> bool:
    return any(key == section or key.startswith(section + ".") for section in SECTIONS)


def _num_parameters(path: Path) -> int:
    """Weights in a safetensors file, from its head alone."""
    total = 0
    with safe_open(path, "numpy") as weights:
        for name in weights.keys():  # noqa: SIM118  (not a mapping)
            size = 1
            for length in weights.get_slice(name).get_shape():
                size *= length
            total += size
    return total


def run(words: Sequence[str], store: Tracking) -> str:
    """The command `compare`: the comparison of the runs that its words name."""
    if len(words) < 2:
        raise RequestError("compare needs two runs or more: folders (runs/NAME), or ids or names of runs in MLflow")
    return table([open_run(word, store) for word in words])
