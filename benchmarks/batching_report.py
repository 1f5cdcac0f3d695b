"""The comparison of batching methods as a table, a Markdown report and a figure."""

from itertools import cycle
from typing import Any

from batching_methods import BASELINE
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLUMNS = ("method", "tokens/s", "of fixed", "fill", "memory", "perplexity", "tokens seen", "off by")
COLOURS = {
    "one-by-one": "#7f7f7f",
    "equal-lengths": "#bcbd22",
    "padded": "#d62728",
    "padded-masked": "#ff7f0e",
    "cell-by-step": "#8c564b",
    "packed-as-usual": "#9467bd",
    BASELINE: "#222222",
}
"""Colours of the plain methods and the baseline; our layouts are blue and green."""
OURS = ("#08519c", "#3182bd", "#2ca25f", "#66c2a4")


def table(methods: list[dict[str, Any]]) -> str:
    """The table as aligned text."""
    lines = [COLUMNS, *(cells(row, methods) for row in methods)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    pads = [str.ljust, *[str.rjust] * (len(COLUMNS) - 1)]
    return "\n".join("  ".join(pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)).rstrip() for line in lines)


def cells(row: dict[str, Any], methods: list[dict[str, Any]]) -> tuple[str, ...]:
    """A row of the table."""
    fixed, last = _baseline(methods), row["points"][-1]
    return (
        row["label"],
        f"{row['tokens_per_second']:,.0f}",
        f"{row['tokens_per_second'] / fixed['tokens_per_second']:.2f}",
        f"{row['fill']:.1%}",
        f"{row['memory_bytes'] / 1e6:,.0f} MB",
        f"{last['perplexity']:,.2f}",
        f"{last['tokens']:,}{'' if row['whole'] else '*'}",
        f"{row['difference']:.0e}" if row["difference"] < 1e-6 else f"{row['difference']:,.0%}",
    )


def markdown(results: dict[str, Any]) -> str:
    """The report."""
    about, methods = results["about"], results["methods"]
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(cells(row, methods) for row in methods)]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"""# Batching methods on {about["recipe"]}

    python {" ".join(results["command"])}

{about["model"]}; {about["training"]}; no dropout, learning rate constant. {about["machine"]}.

{rows}

- tokens/s: targets per second, median over the steps; *of fixed*: relative to fixed rows of {about["row_length"]} tokens.
- fill: targets divided by the positions that run through the model, padding included.
- memory: peak of training above what the process held before its first step: activations, gradients, optimizer state.
- perplexity: of {about["validation_tokens"]:,} tokens of validation sentences, each from a zero state, after *tokens seen*; a star: stopped
  after {about["seconds"]:g} seconds, before {about["tokens"]:,} tokens.
- off by: the largest relative difference of loss and gradients from our model running the sentences one by one, in float64.

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
    speeds = [row["tokens_per_second"] for row in methods]
    positions = range(len(methods))
    axes.barh(positions, speeds, color=_colours(methods), height=0.7)
    axes.set_yticks(positions, [row["label"] for row in methods])
    axes.invert_yaxis()
    axes.set_xlim(0, max(speeds) * 1.9)
    axes.axvline(_baseline(methods)["tokens_per_second"], color=COLOURS[BASELINE], linewidth=0.8, linestyle=":", zorder=0)
    for position, row in zip(positions, methods, strict=True):
        last = row["points"][-1]
        early = "" if row["whole"] else f" (after {_short(last['tokens'])} tokens)"
        text = f"{row['tokens_per_second']:,.0f}   fill {row['fill']:.1%}   perplexity {last['perplexity']:,.0f}{early}"
        axes.annotate(
            text, (row["tokens_per_second"], position), (4, 0), textcoords="offset points", va="center", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_xlabel("targets per second (median over the steps)")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: Axes, methods: list[dict[str, Any]]) -> None:
    for row, colour in zip(methods, _colours(methods), strict=True):
        seconds, perplexities = ([point[key] for point in row["points"]] for key in ("seconds", "perplexity"))
        style = "--" if row["key"] == BASELINE else "-"
        axes.plot(seconds, perplexities, style, color=colour, marker="o", markersize=3, linewidth=1.2)
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


def _colours(methods: list[dict[str, Any]]) -> list[str]:
    ours = cycle(OURS)
    return [COLOURS.get(row["key"]) or next(ours) for row in methods]


def _short(number: int) -> str:
    return f"{number / 1000:,.0f}k" if number >= 10_000 else f"{number:,}"
