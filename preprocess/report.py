"""The report of a dataset: lengths of sentences and documents, and frequencies of tokens.

    report/lengths.png      histograms of sentences and documents by length in tokens, for each split
    report/frequency.png    tokens of the training split by rank (Zipf's law), with `<eos>` and the unknown token marked
    report/report.json      the same as numbers

Shards are measured while they are made, or read again; measures can be added. The same measures give the same bytes: the files contain
no times, no names of programs, and nothing of the user's own matplotlib settings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from packlm.base import files
from packlm.base.escape import one_line
from packlm.dataset import Split
from packlm.text.encoder import Encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

NAME = "report"
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
COVERAGES = (0.5, 0.9, 0.95, 0.99)
_SLICE = 1 << 22  # ids counted at a time: bincount converts each to eight bytes
_COLORS = {"train": "#3b6ea8", "validation": "#d9822b", "test": "#4b9560"}


@dataclass(frozen=True, eq=False)
class Lengths:
    """A histogram of lengths."""

    values: np.ndarray
    """int64: the lengths that occur, ascending."""
    counts: np.ndarray
    """int64: the count of each; positive."""

    @staticmethod
    def of(lengths: np.ndarray) -> "Lengths":
        """Counts lengths."""
        values, counts = np.unique(np.asarray(lengths, np.int64), return_counts=True)
        return Lengths(values, counts.astype(np.int64))

    def __add__(self, other: "Lengths") -> "Lengths":
        values, index = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, index, np.concatenate([self.counts, other.counts]))
        return Lengths(values, counts)

    @property
    def number(self) -> int:
        """Number of sentences or documents."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """Sum of all lengths."""
        return int((self.values * self.counts).sum())

    def quantile(self, share: float) -> int:
        """The smallest length that at least this share (0 < share <= 1) does not exceed; 0 if there are none."""
        if not self.number:
            return 0
        return int(self.values[np.searchsorted(np.cumsum(self.counts), share * self.number)])

    @property
    def longest(self) -> int:
        """0 if there are none."""
        return int(self.values[-1]) if len(self.values) else 0


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of a shard, or of a split: the sum of its shards. Lengths are in tokens, `<eos>` included."""

    sentences: Lengths
    documents: Lengths
    frequencies: np.ndarray
    """[V] int64: occurrences of each id among the targets."""

    @staticmethod
    def of(ids: np.ndarray, sentences: np.ndarray, documents: np.ndarray, vocab_size: int) -> "Measures":
        """Measures ids [N], of sentences and documents of these lengths."""
        frequencies = np.zeros(vocab_size, np.int64)
        for start in range(0, len(ids), _SLICE):
            frequencies += np.bincount(ids[start : start + _SLICE], minlength=vocab_size)
        return Measures(Lengths.of(sentences), Lengths.of(documents), frequencies)

    @staticmethod
    def none(vocab_size: int) -> "Measures":
        """Measures without any text."""
        empty = Lengths.of(np.empty(0, np.int64))
        return Measures(empty, empty, np.zeros(vocab_size, np.int64))

    def save(self, path: Path) -> None:
        """Writes the measures as an .npz file."""
        lengths = {"sentences": self.sentences, "documents": self.documents}
        arrays = {f"{name}_{part}": getattr(item, part) for name, item in lengths.items() for part in ("values", "counts")}
        with files.atomic(path) as stream:
            np.savez(stream, frequencies=self.frequencies, **arrays)

    @staticmethod
    def load(path: Path) -> "Measures":
        """Reads an .npz file that `save` wrote."""
        with np.load(path) as arrays:
            sentences, documents = (Lengths(arrays[f"{name}_values"], arrays[f"{name}_counts"]) for name in ("sentences", "documents"))
            return Measures(sentences, documents, arrays["frequencies"])

    def __add__(self, other: "Measures") -> "Measures":
        return Measures(self.sentences + other.sentences, self.documents + other.documents, self.frequencies + other.frequencies)


def measure(folder: Path, splits: Mapping[str, Split]) -> dict[str, Measures]:
    """Measures the sentences view of each split of a dataset."""
    vocab_size = Encoder.load(folder).vocab_size
    measured = {name: Measures.none(vocab_size) for name in splits}
    for name, split in splits.items():
        for file in split.files["sentences"]:
            for part in _of_shard(folder / file, vocab_size):
                measured[name] += part
    return measured


def _of_shard(path: Path, vocab_size: int) -> Iterator[Measures]:
    total, opened = 0, np.empty(0, np.int64)  # tokens so far; start of the document that continues in the next batch
    with pq.ParquetFile(path) as shard:
        for batch in shard.iter_batches(1 << 16, columns=["ids", "position"]):
            ids, lengths = batch.column("ids").flatten().to_numpy(), batch.column("ids").value_lengths().to_numpy()
            ends = total + np.cumsum(lengths, dtype=np.int64)
            opened = np.append(opened, (ends - lengths)[batch.column("position").to_numpy() == 0])
            yield Measures.of(ids, lengths, np.diff(opened), vocab_size)
            total, opened = int(ends[-1]), opened[-1:]
    yield Measures.of(opened[:0], opened[:0], total - opened, vocab_size)


def write(folder: Path, splits: Mapping[str, Measures]) -> list[Path]:
    """Writes the report of a dataset into `folder/report/`; returns its files.

    Args:
        folder: the dataset's folder, which has the tokenizer already.
        splits: the measures of each split; "train" is among them.
    """
    import matplotlib.style

    encoder, report, paths = Encoder.load(folder), folder / NAME, []
    with matplotlib.style.context("default"):  # instead of the user's own matplotlibrc
        for name, figure in (
            ("lengths.png", _lengths_figure(splits)),
            ("frequency.png", _frequency_figure(splits["train"].frequencies, encoder)),
        ):
            with files.atomic(report / name) as stream:
                figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
            paths.append(report / name)
    files.write_json(report / "report.json", numbers(splits, encoder))
    return [*paths, report / "report.json"]


def numbers(splits: Mapping[str, Measures], encoder: Encoder) -> dict[str, Any]:
    """The content of `report.json`: for each split, its lengths (quantiles, histogram) and its tokens (types, frequencies)."""
    trained = splits["train"].frequencies > 0
    return {
        name: {
            "sentences": _length_numbers(measures.sentences),
            "documents": _length_numbers(measures.documents),
            "tokens": _token_numbers(measures.frequencies, trained, encoder),
        }
        for name, measures in splits.items()
    }


def _length_numbers(lengths: Lengths) -> dict[str, Any]:
    edges = bins(lengths.longest)
    counts = _binned(lengths, edges).tolist()
    return {
        "number": lengths.number,
        "tokens": lengths.total,
        "mean": lengths.total / lengths.number if lengths.number else 0.0,
        "quantiles": {f"{share:.0%}": lengths.quantile(share) for share in QUANTILES},
        "longest": lengths.longest,
        "histogram": [
            {"from": low, "to": high - 1, "number": count} for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True) if count
        ],
    }


def _token_numbers(frequencies: np.ndarray, trained: np.ndarray, encoder: Encoder) -> dict[str, Any]:
    """Numbers of a split's tokens; `trained` [V] is true for ids that occur in the training split."""
    order = _by_rank(frequencies)
    counts, total = frequencies[order], int(frequencies.sum())
    reached = np.cumsum(counts)
    special = {"eos": encoder.eos} | ({"unknown": encoder.unk} if encoder.unk is not None else {})
    return {
        "number": total,
        "types": len(order),
        "vocabulary": len(frequencies),
        "types_per_token": len(order) / total if total else 0.0,
        "occurring_once": int((counts == 1).sum()),
        "not_in_train": int(frequencies[~trained].sum()),
        "types_that_cover": {f"{share:.0%}": int(np.searchsorted(reached, share * total)) + 1 if total else 0 for share in COVERAGES},
        **{name: {"token": encoder.token(id), "count": int(frequencies[id])} for name, id in special.items()},
        "most_frequent": [{"token": encoder.token(int(id)), "count": int(frequencies[id])} for id in order[:20]],
        "count_at_rank": {str(rank): int(counts[rank - 1]) for rank in _ranks(len(order)).tolist()},
    }


def bins(longest: int, parts: int = 4) -> list[int]:
    """Edges of a histogram from 1 to beyond `longest`, with `parts` (a power of two) bins per doubling where it has so many integers."""
    edges = [1]
    while edges[-1] <= longest:
        doubling = 1 << (edges[-1].bit_length() - 1)
        edges.append(edges[-1] + max(1, doubling // parts))
    return edges


def _binned(lengths: Lengths, edges: list[int]) -> np.ndarray:
    return np.histogram(lengths.values, edges, weights=lengths.counts)[0].astype(np.int64) if len(edges) > 1 else np.empty(0, np.int64)


def _by_rank(frequencies: np.ndarray) -> np.ndarray:
    """The ids that occur, by descending frequency, then ascending id."""
    order = np.argsort(-frequencies, kind="stable")
    return order[: int((frequencies > 0).sum())]


def _ranks(count: int) -> np.ndarray:
    """The ranks from 1 to `count` at which the curve is plotted: about fifty per power of ten, and the last."""
    if not count:
        return np.empty(0, np.int64)
    steps = int(np.ceil(50 * np.log10(count)))
    return np.unique(np.append(np.minimum(np.floor(10 ** (np.arange(steps + 1) / 50)), count).astype(np.int64), count))


def _figure(panels: int, left: float, above: float) -> "tuple[Figure, list[Axes]]":
    """A column of panels with margins of `left` and `above` inches each.

    Margins are given, because matplotlib's automatic layouts draw everything once more to find them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height, below = 8.0, 4.4, 0.6
    figure = Figure(figsize=(width, height * panels))
    FigureCanvasAgg(figure)
    margins = {"left": left / width, "right": 0.97, "bottom": below / height / panels, "top": 1 - above / height / panels}
    between = (above + below) / (height - above - below)
    column = list(figure.subplots(panels, squeeze=False, gridspec_kw={**margins, "hspace": between})[:, 0])
    for axes in column:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_thousands)
        _few_minor_ticks(axes.xaxis)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, column


def _few_minor_ticks(axis: "Axis") -> None:
    """Minor ticks at 2 and 5 only: with all eight, drawing the frequency figure took 1.7 times as long."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(NullFormatter())


def _thousands(value: float, position: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float, position: float) -> str:
    return f"{value:.0%}"


def _lengths_figure(splits: Mapping[str, Measures]) -> "Figure":
    figure, panels = _figure(2, left=0.75, above=1.0)
    for axes, what in zip(panels, ("sentences", "documents"), strict=True):
        of_split: dict[str, Lengths] = {name: getattr(measures, what) for name, measures in splits.items()}
        for name, lengths in of_split.items():
            # Wider bins for small splits, which would show only noise; as shares per doubling, bins of any width are comparable.
            edges = bins(lengths.longest, 4 if lengths.number >= 2000 else 2 if lengths.number >= 200 else 1)
            heights = _binned(lengths, edges) / max(1, lengths.number) / np.diff(np.log2(edges))
            if name == "train":
                axes.stairs(heights, edges, fill=True, color=_COLORS[name], alpha=0.22)
            axes.stairs(heights, edges, color=_COLORS[name], linewidth=1.6, label=_label(name, lengths, what))
        highest = max(10, *(lengths.longest for lengths in of_split.values()))
        steps = (1, 2, 5) if highest < 10_000 else (1,)
        axes.set_xlim(1, highest * 1.1)
        axes.set_xticks([step * 10**power for power in range(len(str(highest))) for step in steps if step * 10**power <= highest])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_percent)
        axes.set_xlabel(f"tokens in a {what.removesuffix('s')}, <eos> included")
        axes.set_ylabel(f"share of {what} to a doubling of length")
        above = axes.legend(title=f"Length of {what}", loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=9)
        above.set_alignment("left")
        above.get_title().set(fontsize=12, fontweight="bold")
    return figure


def _label(name: str, lengths: Lengths, what: str) -> str:
    if not lengths.number:
        return f"{name}: no {what}"
    noun = what if lengths.number > 1 else what.removesuffix("s")
    return f"{name}: {lengths.number:,} {noun}, median {lengths.quantile(0.5):,}, longest {lengths.longest:,} tokens"


def _frequency_figure(frequencies: np.ndarray, encoder: Encoder) -> "Figure":
    figure, (axes,) = _figure(1, left=1.2, above=0.4)
    order = _by_rank(frequencies)
    counts, ranks = frequencies[order], _ranks(len(order))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_thousands)
    _few_minor_ticks(axes.yaxis)
    axes.plot(ranks, counts[ranks - 1], ".-", color=_COLORS["train"], markersize=4, linewidth=1.2)
    for id, color in ((encoder.eos, _COLORS["validation"]), (encoder.unk, _COLORS["test"])):
        if id is not None and frequencies[id]:
            rank = int(np.flatnonzero(order == id)[0]) + 1
            label = f"{one_line(encoder.token(id))}: rank {rank:,}, {frequencies[id]:,} times"
            axes.plot([rank], [frequencies[id]], "o", color=color, markersize=8, label=label)
    if axes.get_legend_handles_labels()[0]:
        for text in axes.legend(loc="upper right", frameon=False, fontsize=9).get_texts():
            text.set_parse_math(False)
    axes.set_xlim(0.8, max(10, len(order)) * 1.25)
    axes.set_ylim(0.7, max(10, int(frequencies.max())) * 2.5)
    once = int((counts == 1).sum())
    about = f"{int(counts.sum()):,} tokens\n{len(order):,} of {len(frequencies):,} entries occur,\n{once:,} of them once"
    axes.text(0.03, 0.05, about, transform=axes.transAxes, va="bottom", fontsize=9)
    # Its position is given, because finding it draws the axes once more.
    axes.set_title("Token frequency in the training split", loc="left", y=1.0, fontsize=12, fontweight="bold")
    axes.set_xlabel("rank of the token (1 is the most frequent)")
    axes.set_ylabel("occurrences")
    return figure
