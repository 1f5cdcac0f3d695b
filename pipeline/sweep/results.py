"""What came of a sweep: a table, a figure, and a recipe of the best trial."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from packlm.base import escape, files
from packlm.config import Config, to_toml

from .space import Space, with_values

SHOWN = 10
"""Trials that the printed table lists."""


def perplexity_of(trial: Any) -> float:
    """The best validation perplexity of a finished or pruned trial; NaN if it has none."""
    losses = [*trial.intermediate_values.values(), *([trial.value] if trial.value is not None else [])]
    return math.exp(min(losses)) if losses else math.nan


def rows(trials: Sequence[Any], space: Space) -> list[list[str]]:
    """The names of the columns, then a row for each trial, best first: number, state, perplexity, validations, values."""
    ordered = sorted(trials, key=lambda trial: (trial.state.name != "COMPLETE", _order(perplexity_of(trial)), trial.number))
    return [["trial", "state", "perplexity", "validations", *space]] + [
        [
            str(trial.number), trial.state.name.lower(), f"{perplexity_of(trial):.2f}", str(len(trial.intermediate_values)),
            *(_text(trial.params.get(name)) for name in space),
        ]
        for trial in ordered
    ]  # fmt: skip


def write(
    folder: Path, trials: Sequence[Any], table_rows: list[list[str]], base: Config, space: Space, importances: dict[str, float]
) -> Any:
    """Writes `trials.tsv`, `best.toml` and `sweep.svg`; returns the figure. `table_rows`: as of `rows`."""
    lines = ["\t".join(map(escape.one_line, row)) for row in table_rows]
    files.write_text(folder / "trials.tsv", "\n".join(lines) + "\n")
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if complete:
        best = min(complete, key=lambda trial: trial.value)
        recipe = with_values(base, values_of(best, space))
        title = f"# Trial {best.number} of {len(trials)}: validation perplexity {math.exp(best.value):.2f}.\n\n"
        files.write_text(folder / "best.toml", title + to_toml(recipe))
    figure = _figure(trials, importances)
    image = io.StringIO()
    figure.savefig(image, format="svg", bbox_inches="tight")
    files.write_text(folder / "sweep.svg", image.getvalue())
    return figure


def values_of(trial: Any, space: Space) -> dict[str, Any]:
    """The settings of a trial, by their names."""
    from optuna.trial import FixedTrial

    fixed = FixedTrial(trial.params)
    return {name: domain.suggest(fixed, name) for name, domain in space.items()}


def table(table_rows: list[list[str]], importances: dict[str, float]) -> str:
    """The best trials, and how much each setting matters, for people. `table_rows`: as of `rows`."""
    shown = table_rows[: 1 + SHOWN]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in shown]
    if importances:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in importances.items())
        lines += ["", f"share of the differences between trials that a setting explains: {shares}"]
    return "\n".join(lines)


def _figure(trials: Sequence[Any], importances: dict[str, float]) -> Any:
    """Left the perplexity of every trial and the best so far, right the importances."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    best = math.inf
    progress = []
    for state, color, label in (("COMPLETE", "C0", "complete"), ("PRUNED", "0.7", "stopped early")):
        some = [trial for trial in trials if trial.state.name == state and math.isfinite(perplexity_of(trial))]
        left.scatter([trial.number for trial in some], [perplexity_of(trial) for trial in some], c=color, label=label, s=24)
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state.name == "COMPLETE":
            best = min(best, perplexity_of(trial))
        progress.append((trial.number, best))
    known = [(number, value) for number, value in progress if math.isfinite(value)]
    left.step([number for number, _ in known], [value for _, value in known], where="post", color="C1", label="best so far")
    left.set(xlabel="trial", ylabel="validation perplexity")
    if known:
        left.set_yscale("log")
        left.yaxis.set_major_formatter("{x:,.0f}")
        left.yaxis.set_minor_formatter("{x:,.0f}")
    left.legend()
    left.grid(alpha=0.3)
    right.barh([*importances][::-1], [*importances.values()][::-1])
    right.set(xlabel="share of the differences explained", xlim=(0, 1))
    if not importances:
        right.set_yticks([])
        right.text(0.5, 0.5, "too few complete trials", ha="center", va="center", transform=right.transAxes)
    return figure


def _order(perplexity: float) -> float:
    return perplexity if math.isfinite(perplexity) else math.inf


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
