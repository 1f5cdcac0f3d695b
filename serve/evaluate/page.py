"""An evaluation as a page of Markdown with one figure beside it, for people: the numbers, what they mean, where the loss is."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packlm.base import files
from packlm.evaluation import reports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Report = dict[str, Any]
MODEL, NGRAMS, UNIGRAM = "#3b6ea8", "#d9822b", "#9a9a9a"
BESIDE = (("perplexity_unigram", "their frequencies", UNIGRAM), ("perplexity_kneser_ney_5", "Kneser-Ney 5-grams", NGRAMS))


def write(report: Report, path: Path) -> None:
    """Writes the page to `path` (`.md`) and its figure beside it (`.svg`)."""
    picture = path.with_suffix(".svg")
    with files.atomic(picture) as stream:
        stream.write(drawn(report))
    files.write_text(path, page(report, picture.name))


def write_all(made: list[Report], out: str | None) -> None:
    """Prints reports, or writes them to `out`: JSON (`-`: standard output; an object, or a list of several), or, of one, a page (`.md`)."""
    whole = made[0] if len(made) == 1 else made
    if out == "-":
        print(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    if out and out.endswith(".md"):
        write(made[0], Path(out))
    elif out:
        files.write_json(Path(out), whole)
    print("\n\n".join(map(reports.table, made)))


def page(report: Report, picture: str) -> str:
    """The page; `picture`: where its figure is."""
    documents = report["by_document"]
    parts = [
        f"# {report['model']} on {report['split'] or report['data']}\n",
        _table(["", ""], [[name or "&nbsp;", value] for name, value in reports.rows(report)]),
        _interval(report),
        f"![Perplexity by length of the sentence and frequency of the token, where the loss is, and by document]({picture})\n",
        "## By length of the sentence\n\nTokens of sentences of so many tokens, `<eos>` included.\n",
        _groups(report["by_sentence_length"]),
        "## By token\n\nTokens that occur so often in the training split.\n"
        if any(row["group"] not in ("<eos>", "unknown", "other") for row in report["by_token"])
        else "## By token\n",
        _groups(report["by_token"]),
        "## By document\n",
        _table([f"{share} of documents below" for share in documents["perplexity_at"]], [_numbers(documents["perplexity_at"].values())]),
    ]
    for end in ("hardest", "easiest"):
        rows = [[row["document"].replace("|", "\\|"), f"{row['tokens']:,}", f"{row['perplexity']:,.2f}"] for row in documents[end]]
        parts.append(_table([f"{end} documents", "tokens", "perplexity"], rows))
    return "\n".join(parts)


def drawn(report: Report) -> bytes:
    """The figure, as SVG: the same report gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "packlm", "font.size": 9}):
        figure, panels = _figure()
        _bars(panels[0], report["by_sentence_length"], "tokens in the sentence", "Perplexity by length of the sentence")
        _bars(panels[1], report["by_token"], "occurrences in training", "Perplexity by frequency of the token")
        _shares(panels[2], report["by_token"])
        _histogram(panels[3], report)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _interval(report: Report) -> str:
    found = report["interval"]
    if not found:
        return "One document: how far the numbers would be off with another, it does not tell.\n"
    low, high = found["perplexity"]
    return (
        f"Had other documents of this kind been drawn, the perplexity would have been between {low:,.2f} and {high:,.2f} "
        f"({found['level']:.0%} of 1,000 resamples of the {report['documents']:,} documents). It says nothing of another training of the "
        "same model.\n"
    )


def _groups(rows: list[dict[str, Any]]) -> str:
    beside = [(key, name) for key, name, _ in reversed(BESIDE) if key in rows[0]]
    heads = ["", "tokens", "loss per token", "perplexity", "likeliest", "among five", *(name for _, name in beside)]
    cells = [
        [
            f"`{row['group']}`", f"{row['tokens']:,}", f"{row['loss_per_token']:.4f}", f"{row['perplexity']:,.2f}",
            f"{row['accuracy_at_1']:.1%}", f"{row['accuracy_at_5']:.1%}", *_numbers(row[key] for key, _ in beside),
        ]
        for row in rows
    ]  # fmt: skip
    return _table(heads, cells)


def _numbers(values: Any) -> list[str]:
    return [f"{value:,.2f}" for value in values]


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)] if len(heads) > 2 else ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _figure() -> "tuple[Figure, list[Axes]]":
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


def _bars(axes: "Axes", rows: list[dict[str, Any]], what: str, title: str) -> None:
    """A point for each group, of the model and of what there is beside it."""
    places = range(len(rows))
    for key, name, color in (*BESIDE, ("perplexity", "the model", MODEL)):
        if key in rows[0]:
            axes.plot(places, [row[key] for row in rows], "o-", color=color, linewidth=1.6, markersize=4, label=name)
    axes.set_yscale("log")
    _plain(axes.yaxis)
    _name(axes, rows)
    axes.set_xlabel(what)
    axes.set_ylabel("perplexity")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _shares(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    """What each group is of all tokens, and of all loss."""
    tokens = [row["tokens"] for row in rows]
    losses = [row["tokens"] * row["loss_per_token"] for row in rows]
    for offset, values, name, color in ((-0.2, tokens, "of all tokens", UNIGRAM), (0.2, losses, "of all loss", MODEL)):
        heights = [value / sum(values) for value in values]
        axes.bar([place + offset for place in range(len(rows))], heights, 0.4, color=color, label=name)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _name(axes, rows)
    axes.set_xlabel("occurrences in training")
    axes.set_title("Where the loss is", loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _histogram(axes: "Axes", report: Report) -> None:
    found = report["by_document"]["histogram"]
    axes.stairs(found["counts"], found["edges"], fill=True, color=MODEL, alpha=0.3)
    axes.axvline(report["perplexity"], color=MODEL, label=f"of all tokens: {report['perplexity']:,.2f}")
    if report["interval"]:
        axes.axvspan(*report["interval"]["perplexity"], color=MODEL, alpha=0.15, label=f"{report['interval']['level']:.0%} interval")
    axes.set_xscale("log")
    _plain(axes.xaxis)
    axes.locator_params(axis="y", integer=True)
    axes.set_xlabel("perplexity of a document")
    axes.set_ylabel("documents")
    axes.set_title("Perplexity of documents", loc="left", fontweight="bold")
    axes.legend(frameon=False)


def _plain(axis: "Axis") -> None:
    """Plain numbers at 1, 2 and 5 times the powers of ten of a logarithmic axis."""
    for ticks in (axis.set_major_formatter, axis.set_minor_formatter):
        ticks(lambda value, _: f"{value:,.0f}" if f"{value:e}"[0] in "125" else "")


def _name(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    axes.set_xticks(range(len(rows)), [row["group"] for row in rows], rotation=25, ha="right")
