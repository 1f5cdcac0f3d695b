"""The comparison of batching methods as a table, a Markdown report and a figure."""

import math
from statistics import median
from typing import Any

from batching_methods import BASELINE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLUMNS = ("method", "tokens/s", "of fixed", "fill", "memory", "updates", "tokens seen", "perplexity", "off by")
UNEQUAL = 0.1
"""Relative difference of tokens, or of tokens per update, from which on perplexities are said not to compare."""
COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
"""Colours that stay apart for colour-blind readers, too (Okabe and Ito, 2008, without its yellow and orange, which are pale on white)."""
MARKERS = "os^DvXP*<>hp"
STYLES = ("-", "--", ":")
"""A method has its own marker; colours begin again, with the next line style, after the last one."""


def table(methods: list[dict[str, Any]]) -> str:
    """The table as aligned text."""
    lines = [COLUMNS, *(cells(row, methods) for row in methods)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    pads = [str.ljust, *[str.rjust] * (len(COLUMNS) - 1)]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)).rstrip() for line in lines)


def cells(row: dict[str, Any], methods: list[dict[str, Any]]) -> tuple[str, ...]:
    """A row of the table."""
    return (
        row["label"],
        f"{speed(row):,.0f}",
        f"{relative_speed(row, methods):.2f}",
        f"{total(row, 'tokens') / total(row, 'positions'):.1%}",
        f"{max(turn['memory_bytes'] for turn in row['turns']) / 1e6:,.0f} MB",
        f"{total(row, 'updates'):,}",
        f"{total(row, 'tokens'):,}",
        f"{row['points'][-1]['perplexity']:,.2f}" if len(row["turns"]) in (1, 2, 4, 8) else f"({row['points'][-1]['perplexity']:,.2f})",
        f"{row['difference']:.0e}" if row["difference"] < 1e-6 else f"{row['difference']:,.0%}",
    )


def caveats(methods: list[dict[str, Any]]) -> list[str]:
    """What the perplexities of the table do not compare: methods with another number of tokens, or of updates for the same tokens."""
    most = max(total(row, "tokens") for row in methods)
    usual = median(total(row, "tokens") / total(row, "updates") for row in methods)
    lines = []
    for row in methods:
        tokens, updates = total(row, "tokens"), total(row, "updates")
        if tokens < (1 - UNEQUAL) * most:
            lines.append(f"{row['label']}: its perplexity is after {tokens:,} tokens, that of others after up to {most:,}")
        if not 1 - UNEQUAL < tokens / updates / usual < 1 + UNEQUAL:
            lines.append(
                f"{row['label']}: {updates:,} updates of {tokens / updates:,.0f} tokens each, others of {usual:,.0f}: at equal tokens "
                "its perplexity is that of another number of updates"
            )
    return lines


def total(row: dict[str, Any], name: str) -> int:
    """The sum of a number over the turns of a method."""
    return sum(turn[name] for turn in row["turns"])


def speeds(row: dict[str, Any]) -> list[float]:
    """Tokens per second in each round; NaN in a round in which it had reached its limit before."""
    return [turn["tokens"] / turn["seconds"] if turn["tokens"] else math.nan for turn in row["turns"]]


def speed(row: dict[str, Any]) -> float:
    """Tokens per second: the median over the rounds."""
    return median(value for value in speeds(row) if not math.isnan(value))


def relative_speed(row: dict[str, Any], methods: list[dict[str, Any]]) -> float:
    """The speed relative to that of fixed rows in the same round: the median over the rounds. Load that lasts changes both alike."""
    ratios = [value / fixed for value, fixed in zip(speeds(row), speeds(_baseline(methods)), strict=True)]
    return median(ratio for ratio in ratios if not math.isnan(ratio))


def markdown(results: dict[str, Any]) -> str:
    """The report."""
    about, methods = results["about"], results["methods"]
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(cells(row, methods) for row in methods)]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    more = "".join(f"- **{line}.**\n" for line in caveats(methods))
    return f"""# Batching methods on {about["recipe"]}

    python {" ".join(results["command"])}

{about["model"]}; {about["training"]}; no dropout, learning rate constant. {about["machine"]}.

{rows}

- Methods take turns: {len(methods[0]["turns"])} of {about["rounds"]} rounds. tokens/s: targets per second, the median over the rounds;
  *of fixed*: relative to fixed rows of {about["row_length"]} tokens in the same round, the median over the rounds.
- fill: targets divided by the positions that run through the model, padding included.
- memory: peak of training above what the process held before its first step: activations, gradients, optimizer state.
- updates, tokens seen: until {about["tokens"]:,} tokens, or {about["seconds"]:g} seconds of training if that was earlier.
- perplexity: of {about["validation_tokens"]:,} tokens of validation sentences, each from a zero state, after *tokens seen*; in
  parentheses: measured some rounds earlier.
{more}- off by: the largest relative difference of loss and gradients from our model running the sentences one by one, in float64.

![The table as bars, and perplexity against seconds](compare-batching.png)
"""


def figure(results: dict[str, Any]) -> Figure:
    """Bars of tokens/s, annotated with fill and perplexity; curves of perplexity against training time."""
    about, methods = results["about"], results["methods"]
    picture = Figure(figsize=(13, 0.4 * len(methods) + 2), layout="constrained")
    bars, curves = picture.subplots(1, 2, width_ratios=(3, 2))
    picture.suptitle(f"{about['recipe']}: {about['model']}; {about['training']}\n{about['machine']}", fontsize=10)
    _draw_bars(bars, methods)
    _draw_curves(curves, methods)
    return picture


def _draw_bars(axes: Axes, methods: list[dict[str, Any]]) -> None:
    values = [speed(row) for row in methods]
    positions = range(len(methods))
    axes.barh(positions, values, color=[_look(number)["color"] for number in positions], height=0.7)
    axes.set_yticks(positions, [row["label"] for row in methods])
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.9)
    axes.axvline(speed(_baseline(methods)), color="#222222", linewidth=0.8, linestyle=":", zorder=0)
    for position, row, value in zip(positions, methods, values, strict=True):
        last = row["points"][-1]
        fill = total(row, "tokens") / total(row, "positions")
        text = f"{value:,.0f}   fill {fill:.1%}   perplexity {last['perplexity']:,.0f} after {_short(last['tokens'])} tokens"
        axes.annotate(
            text, (value, position), (4, 0), textcoords="offset points", va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_xlabel("targets per second (median over the rounds)")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: Axes, methods: list[dict[str, Any]]) -> None:
    for number, row in enumerate(methods):
        seconds, perplexities = ([point[key] for point in row["points"]] for key in ("seconds", "perplexity"))
        axes.plot(seconds, perplexities, **_look(number), markersize=5, linewidth=1.2, label=row["label"])
    axes.legend(fontsize=7, frameon=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = [factor * 10.0**power for power in range(-2, 8) for factor in (1, 2, 3, 5, 7)]
        ticks = [value for value in ticks if limits[0] <= value <= limits[1]]
        axis.set_ticks(ticks, [f"{value:,.10g}" for value in ticks])
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("perplexity of validation sentences")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _baseline(methods: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in methods if row["key"] == BASELINE)


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and line style of a method."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": STYLES[number // len(COLOURS) % len(STYLES)],
    }


def _short(number: int) -> str:
    return f"{number / 1000:,.0f}k" if number >= 10_000 else f"{number:,}"
