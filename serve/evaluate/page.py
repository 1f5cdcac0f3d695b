"""An evaluation report as a Markdown page with one figure: the numbers, what they mean, and where the loss is."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from packlm.base import files, json_text
from packlm.base.escape import markdown
from packlm.evaluation import reports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Report = dict[str, Any]
MODEL, NGRAMS, UNIGRAM = "#3b6ea8", "#d9822b", "#9a9a9a"
BASELINES = (("perplexity_unigram", "unigram", UNIGRAM), ("perplexity_kneser_ney_5", "Kneser-Ney 5-grams", NGRAMS))
"""(key in a report, name, color) of what the model is compared with."""


def write(report: Report, path: Path) -> None:
    """Writes the page to `path` (`.md`) and its figure beside it (`.svg`)."""
    image = path.with_suffix(".svg")
    with files.atomic(image) as stream:
        stream.write(figure(report))
    files.write_text(path, page(report, image.name))


def write_all(measured: list[Report], out: str | None) -> None:
    """Prints reports as tables, and writes them to `out`: as JSON (one object, or a list of several; `-`: to standard output instead), or
    one report as a page (`.md`)."""
    content = measured[0] if len(measured) == 1 else measured
    if out == "-":
        print(json_text.dumps(content, indent=2))
        return
    if out and out.endswith(".md"):
        write(measured[0], Path(out))
    elif out:
        files.write_json(Path(out), content)
    print("\n\n".join(map(reports.table, measured)))


def page(report: Report, image: str) -> str:
    """The page; `image` is the address of its figure."""
    documents, rows = report["by_document"], reports.rows(report)
    parts = [
        f"# {markdown(report['model'])} on {markdown(report['split'] or report['data'])}\n",
        _table(["", ""], [[name or "&nbsp;", _cell(name, value)] for name, value in rows]),
        _interval(report),
        f"![Perplexity by length of the sentence and frequency of the token, where the loss is, and by document]({quote(image)})\n",
        "## By length of the sentence\n\nTokens of sentences of this length in tokens, `<eos>` included.\n",
        _groups(report["by_sentence_length"]),
        "## By token\n\nTokens by their number of occurrences in the training split.\n"
        if any(row["group"] not in ("<eos>", "unknown", "other") for row in report["by_token"])
        else "## By token\n",
        _groups(report["by_token"]),
        "## By document\n",
        _table([f"{share} of documents below" for share in documents["perplexity_at"]], [_numbers(documents["perplexity_at"].values())]),
    ]
    for end in ("hardest", "easiest"):
        named = [[markdown(row["document"]), f"{row['tokens']:,}", f"{row['perplexity']:,.2f}"] for row in documents[end]]
        parts.append(_table([f"{end} documents", "tokens", "perplexity"], named))
    return "\n".join(parts)


def figure(report: Report) -> bytes:
    """The figure, as SVG; the same report gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "packlm", "font.size": 9, "text.parse_math": False}):
        canvas, panels = _canvas()
        _plot_groups(panels[0], report["by_sentence_length"], "tokens in the sentence", "Perplexity by length of the sentence")
        _plot_groups(panels[1], report["by_token"], "occurrences in training", "Perplexity by frequency of the token")
        _plot_shares(panels[2], report["by_token"])
        _plot_histogram(panels[3], report)
        stream = io.BytesIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _interval(report: Report) -> str:
    interval = report["interval"]
    if not interval:
        return "A single document: there is no interval, which comes from resampling documents.\n"
    low, high = interval["perplexity"]
    return (
        f"{interval['level']:.0%} interval of the perplexity: {low:,.2f} to {high:,.2f}, from 1,000 resamples of the "
        f"{report['documents']:,} documents. It covers the choice of documents, not another training of the same model.\n"
    )


def _groups(rows: list[dict[str, Any]]) -> str:
    baselines = [(key, name) for key, name, _ in reversed(BASELINES) if key in rows[0]]
    header = ["", "tokens", "loss per token", "perplexity", "top 1", "top 5", *(name for _, name in baselines)]
    cells = [
        [
            f"`{row['group']}`", f"{row['tokens']:,}", f"{row['loss_per_token']:.4f}", f"{row['perplexity']:,.2f}",
            f"{row['accuracy_at_1']:.1%}", f"{row['accuracy_at_5']:.1%}", *_numbers(row[key] for key, _ in baselines),
        ]
        for row in rows
    ]  # fmt: skip
    return _table(header, cells)


def _cell(name: str, value: str) -> str:
    """A main number of the report, or one of the two names among them, as Markdown."""
    return markdown(value) if name in ("model", "data") else value.replace("<eos>", "`<eos>`")


def _numbers(values: Any) -> list[str]:
    return [f"{value:,.2f}" for value in values]


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)] if len(header) > 2 else ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _canvas() -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(2, 2).flat)
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _plot_groups(axes: "Axes", rows: list[dict[str, Any]], xlabel: str, title: str) -> None:
    """A line over the groups for the model and for each baseline."""
    for key, name, color in (*BASELINES, ("perplexity", "the model", MODEL)):
        if key in rows[0]:
            axes.plot(range(len(rows)), [row[key] for row in rows], "o-", color=color, linewidth=1.6, markersize=4, label=name)
    axes.set_yscale("log")
    _format_ticks(axes.yaxis)
    _label_groups(axes, rows)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("perplexity")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _plot_shares(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """The share of each group in all tokens, and in all loss."""
    tokens = [row["tokens"] for row in rows]
    losses = [row["tokens"] * row["loss_per_token"] for row in rows]
    for offset, values, name, color in ((-0.2, tokens, "of all tokens", UNIGRAM), (0.2, losses, "of all loss", MODEL)):
        heights = [value / sum(values) for value in values]
        axes.bar([index + offset for index in range(len(rows))], heights, 0.4, color=color, label=name)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _label_groups(axes, rows)
    axes.set_xlabel("occurrences in training")
    axes.set_title("Where the loss is", loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _plot_histogram(axes: "Axes", report: Report) -> None:
    histogram = report["by_document"]["histogram"]
    axes.stairs(histogram["counts"], histogram["edges"], fill=True, color=MODEL, alpha=0.3)
    axes.axvline(report["perplexity"], color=MODEL, label=f"of all tokens: {report['perplexity']:,.2f}")
    if report["interval"]:
        axes.axvspan(*report["interval"]["perplexity"], color=MODEL, alpha=0.15, label=f"{report['interval']['level']:.0%} interval")
    axes.set_xscale("log")
    _format_ticks(axes.xaxis)
    axes.locator_params(axis="y", integer=True)
    axes.set_xlabel("perplexity of a document")
    axes.set_ylabel("documents")
    axes.set_title("Perplexity of documents", loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _format_ticks(axis: "Axis") -> None:
    """Labels a logarithmic axis with plain numbers, at 1, 2 and 5 times the powers of ten."""
    for ticks in (axis.set_major_formatter, axis.set_minor_formatter):
        ticks(lambda value, _: f"{value:,.0f}" if f"{value:e}"[0] in "125" else "")


def _label_groups(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    axes.set_xticks(range(len(rows)), [row["group"] for row in rows], rotation=25, ha="right")
