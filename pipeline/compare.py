"""Compares runs: settings that differ, results side by side, and which of them may be compared.

A run is its folder (`runs/NAME`, or NAME alone), read without MLflow, or a run in MLflow, by id or name.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from packlm import dataset, tracking
from packlm.base import json_models, regular_files, sealed_json
from packlm.base.errors import PacklmError, RequestError
from packlm.base.escape import one_line
from packlm.config import Tracking
from packlm.tracking import RunRecord, metric_names, run_files
from packlm.tracking.run_files import EvaluationReport

SECTIONS = ("corpus", "tokenizer", "model", "train", "evaluate", "run.seed")
"""Settings that the result of a run depends on."""
NOT_SET = "-"

T = TypeVar("T")
Sections = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ComparedRun:
    """What is compared of a run."""

    name: str
    settings: dict[str, str]
    all_settings: bool
    """Whether `settings` is complete: a setting that is missing is then not set, otherwise unknown."""
    numbers: dict[str, float]
    """Size of the model, and length and best validation perplexity of the training."""
    reports: dict[str, EvaluationReport]
    """By split."""


def open_run(name: str, store: Tracking) -> ComparedRun:
    """The run of a folder or in MLflow; `RequestError` if there is none."""
    for folder in (Path(name), Path("runs") / name):
        if any(os.path.exists(folder / file) for file in ("train/settings.json", "model/config.json")):  # noqa: PTH110  (raises nothing for a long name)
            return from_folder(folder)
    return from_record(tracking.read_run(name, store))


def from_folder(folder: Path) -> ComparedRun:
    """The run of a folder, from the files of training and evaluation."""
    sections: Sections = {}
    if (path := folder / "model" / "config.json").exists():
        info = json_models.read(path, dict[str, Any])
        sections = json_models.parse({"corpus": info.get("text", {}), "model": info.get("model", {})}, Sections, path)
        sealed_json.parse(info, dict[str, Any], path, "train it again, or copy it again from its source")
    if (path := folder / "train" / "settings.json").exists():
        sections |= sealed_json.read(path, Sections, "train it again with --rebuild")
    settings = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    numbers: dict[str, float] = {}
    if summary := run_files.training_summary(folder):
        numbers = {"epochs": summary.epochs, "steps": summary.steps, "tokens": summary.tokens, "seconds": summary.seconds}
        if best := summary.validation.best:
            numbers["validation"] = best.perplexity
    if (path := folder / "model" / "model.safetensors").exists():
        numbers["parameters"] = _num_parameters(path)
    texts = {key: NOT_SET if value is None else str(value) for key, value in settings.items() if _is_compared(key)}
    return ComparedRun(folder.resolve().name, texts, False, numbers, run_files.reports(folder))


def from_record(record: RunRecord) -> ComparedRun:
    """The run that MLflow has."""
    names = {
        metric_names.PARAMETERS: "parameters", metric_names.EPOCH: "epochs", metric_names.STEPS: "steps", metric_names.TOKENS: "tokens",
        metric_names.SECONDS: "seconds", metric_names.BEST_PERPLEXITY: "validation",
    }  # fmt: skip
    numbers = {name: record.metrics[metric] for metric, name in names.items() if metric in record.metrics}
    settings = {key: value for key, value in record.params.items() if _is_compared(key)}
    return ComparedRun(record.name, settings, True, numbers, {report.split: report for report in record.reports})


def table(runs: Sequence[ComparedRun]) -> str:
    """The comparison as a table for people."""
    lines: list[tuple[str, ...]] = [("", *(run.name for run in runs)), ("settings",)]
    lines += [(f"  {key}", *values) for key, values in differing(runs)] or [("  no difference",)]
    lines += [("training",), *(_row(name, [run.numbers for run in runs], format) for name, format in _TRAINING_ROWS)]
    for split in dataset.SPLITS:
        reports = [run.reports.get(split) for run in runs]
        if any(reports):
            lines += [(split,), *(_row(name, reports, format) for name, format in _REPORT_ROWS)]
            lines += [(f"  ! {warning}",) for warning in warnings([report for report in reports if report])]
    lines = [tuple(map(one_line, line)) for line in lines]
    columns = zip(*(line for line in lines if len(line) > 1), strict=True)
    widths = [max(map(len, column)) for column in columns]
    aligned = ("  ".join(map(str.ljust, line, widths)).rstrip() if len(line) > 1 else line[0] for line in lines)
    return "\n".join(aligned)


def differing(runs: Sequence[ComparedRun]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) of the settings that differ, among those that are known of every run."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    known = [key for key in keys if all(run.all_settings or key in run.settings for run in runs)]
    rows = [(key, [run.settings.get(key, NOT_SET) for run in runs]) for key in known]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def warnings(reports: Sequence[EvaluationReport]) -> list[str]:
    """Which numbers of the reports of a split must not be compared, and which may be instead."""
    if any(report.ids_digest is None for report in reports):
        return ["a report was written by an older version: run the stage evaluate again"]
    texts = []
    if len({(report.context, report.streams) for report in reports}) > 1:
        texts.append("the contexts differ, and more context makes predictions easier; measure all with one --evaluate.context")
    if len({report.tokenizer_digest for report in reports}) == 1:
        if len({report.ids_digest for report in reports}) > 1:
            texts.append("not the same text: none of these numbers may be compared")
    elif len({(report.documents, report.words, report.bytes) for report in reports}) > 1:
        texts.append("not the same text (documents, words or bytes differ): none of these numbers may be compared")
    elif any(report.bits_per_byte is None for report in reports):
        texts.append("the tokenizers differ and not all are lossless: compare per word, and mind the unknown tokens")
    else:
        texts.append("the tokenizers differ: compare bits per byte, not perplexity per token")
    return texts


_TRAINING_ROWS: tuple[tuple[str, Callable[[dict[str, float]], str]], ...] = (
    ("parameters", lambda numbers: f"{numbers['parameters']:,.0f}"),
    ("epochs", lambda numbers: f"{numbers['epochs']:.2f}"),
    ("steps", lambda numbers: f"{numbers['steps']:,.0f}"),
    ("minutes", lambda numbers: f"{numbers['seconds'] / 60:,.1f}"),
    ("tokens/s", lambda numbers: f"{numbers['tokens'] / numbers['seconds']:,.0f}"),
    ("best validation", lambda numbers: f"{numbers['validation']:,.2f}"),
)
_REPORT_ROWS: tuple[tuple[str, Callable[[EvaluationReport], str]], ...] = (
    ("tokens", lambda report: f"{report.tokens:,}"),
    ("context", lambda report: report.context),
    ("perplexity", lambda report: f"{report.perplexity:,.2f}"),
    ("per word", lambda report: f"{report.perplexity_per_word:,.2f}"),
    ("bits per byte", lambda report: f"{report.bits_per_byte:.4f}" if report.bits_per_byte is not None else NOT_SET),
    ("unknown tokens", lambda report: f"{report.unknown_rate:.2%}"),
)


def _row(name: str, results: Sequence[T | None], format: Callable[[T], str]) -> tuple[str, ...]:
    """A row of the table; `-` for a run without a report or without a number."""
    cells = []
    for result in results:
        try:
            cells.append(NOT_SET if result is None else format(result))
        except (KeyError, ZeroDivisionError):
            cells.append(NOT_SET)
    return (f"  {name}", *cells)


def _is_compared(key: str) -> bool:
    return any(key == section or key.startswith(section + ".") for section in SECTIONS)


def _num_parameters(path: Path) -> int:
    """The number of weights in a safetensors file, from its header."""
    regular_files.open_binary(path).close()
    try:
        with safe_open(path, "numpy") as weights:
            return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118  (not a mapping)
    except SafetensorError as error:
        raise PacklmError(f"{path}: damaged: {error}; make the model again with `packlm train`") from None


def run(names: Sequence[str], store: Tracking) -> str:
    """The command `compare`: the comparison of the runs with these names."""
    if len(names) < 2:
        raise RequestError("compare needs two or more runs: folders (runs/NAME), or ids or names of runs in MLflow")
    return table([open_run(name, store) for name in names])
