"""Minimal pairs: how often the acceptable one of two sentences is the likelier (BLiMP: Warstadt et al. 2020).

    in     tsv      a line of column names, then a pair a line in the columns `good` and `bad`; no quoting
           jsonl    objects with `sentence_good` and `sentence_bad`, as BLiMP writes them
    out    tsv      a row a pair (`COLUMNS`), then the other columns of the input
           jsonl    an object a pair, with the other fields of the input; or, for a line that is no pair, why

Each sentence is scored by itself, its `<eos>` included; log P in nats. A tie counts as wrong: sentences that the tokenizer cannot tell
apart (unknown words are all alike to it) always tie.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from packlm.base.errors import RequestError
from packlm.scoring.sentences import Sentence, SentenceScore

from ..score import files as score_files
from ..score.files import escape, free
from ..score.sentence_files import Reader, Row

COLUMNS = (
    "item", "pair", "good", "bad", "good_log_prob", "bad_log_prob", "difference", "difference_per_token", "correct", "tie",
    "good_unknown_words", "bad_unknown_words",
)  # fmt: skip
"""The columns of a TSV before those passed through; the fields of a record likewise."""


@dataclass(frozen=True)
class Pair:
    """Two sentences, scored."""

    good: SentenceScore
    bad: SentenceScore

    @property
    def difference(self) -> float:
        """log P(good) - log P(bad), in nats: above 0 where the model is right."""
        return 0.0 if self._same else self.good.log_prob - self.bad.log_prob

    @property
    def difference_per_token(self) -> float:
        """The same of log P divided by the number of tokens, which does not favour the shorter sentence."""
        return 0.0 if self._same else float(self.good.log_probs.mean() - self.bad.log_probs.mean())

    @property
    def unknown(self) -> tuple[int, int]:
        """Unknown words of (good, bad)."""
        return int(self.good.unknown.sum()), int(self.bad.unknown.sum())

    @property
    def _same(self) -> bool:
        """Equal tokens are a tie, whatever the rounding of sentences scored in different batches."""
        return self.good.tokens == self.bad.tokens


class Pairs:
    """The pairs of a stream; what the header of a TSV says is known at once."""

    def __init__(self, lines: Iterable[bytes], name: str, kind: str, good: str, bad: str, group: str):
        """
        Args:
            name: of the file, for messages and its ending.
            kind: `pairs.format`.
            good, bad: the columns or fields of the sentences; empty: `good` and `bad`, with `sentence_` before them in JSONL.
            group: the column or field by which pairs are grouped; empty: none.

        Raises:
            RequestError: a binary file, or a TSV without one of the columns.
        """
        if kind == "auto":
            kind = "jsonl" if name.endswith(".jsonl") else "tsv"
        prefix = "sentence_" if kind == "jsonl" else ""
        self.good, self.bad, self.group = good or f"{prefix}good", bad or f"{prefix}bad", group
        self._reader = Reader(lines, name, kind, self.good, False, "pairs.good")
        self.others = [column for column in self._reader.others if column != self.bad]
        """Columns of a TSV that are passed through."""
        for column, setting in ((self.bad, "pairs.bad"), (group, "pairs.group")):
            if kind == "tsv" and column and column != "item" and column not in self._reader.others:
                there = ", ".join([self.good, *self._reader.others])
                raise RequestError(f"{name}: no column {column!r}; there are {there}; {setting} names it")

    def __iter__(self) -> Iterator[Row]:
        """The lines; what `Row.text` is to a sentence, `Row.text` and the field `bad` of `Row.others` are to a pair."""
        for row in self._reader:
            error = row.error or self._complaint(row)
            yield replace(row, error=error) if error else row

    def group_of(self, row: Row) -> str:
        """The group a pair belongs to."""
        return str(row.item if self.group == "item" else row.others[self.group])

    def _complaint(self, row: Row) -> str:
        bad = row.others.get(self.bad)
        if not isinstance(bad, str):
            return f'not an object with a "{self.bad}" that is a string'
        if self.group not in ("", "item") and self.group not in row.others:
            return f'no "{self.group}" to group by'
        empty = [name for name, text in ((self.good, row.text), (self.bad, bad)) if not text.strip()]
        return f"an empty sentence in {' and '.join(empty)}" if empty else ""


def scored(
    rows: Iterable[Row], bad: str, score: Callable[[Iterator[Sentence]], Iterator[SentenceScore]]
) -> Iterator[tuple[Row, Pair | None]]:  # fmt: skip
    """Each line with its pair, or without one where it is an error, in order.

    Args:
        bad: the field of `Row.others` with the other sentence.
        score: `scoring.score` of sentences.
    """

    def sentences() -> Iterator[Row]:
        for row in rows:
            yield row
            if not row.error:
                yield replace(row, text=row.others[bad])

    found = score_files.scored(sentences(), score)
    for row, first in found:
        if first is None:
            yield row, None
        else:
            _, second = next(found)
            assert second is not None
            yield row, Pair(first, second)


class PairWriter:
    """Pairs as lines of a file."""

    def __init__(self, kind: str, pairs: Pairs):
        self._kind, self._others, self._bad = kind, pairs.others, pairs.bad
        names = [*COLUMNS, *(free(name, COLUMNS) for name in self._others)]
        self.header = "\t".join(names) + "\n" if kind == "tsv" else ""

    def lines(self, row: Row, pair: Pair | None) -> Iterator[str]:
        """The line of a pair; a TSV has none for a line that is no pair."""
        if self._kind == "jsonl":
            others = {free(name, COLUMNS): value for name, value in row.others.items() if name != self._bad}
            record = {"pair": row.number, "error": row.error} if pair is None else _cells(row, pair) | others
            yield json.dumps(record, ensure_ascii=False) + "\n"
        elif pair is not None:
            cells = [escape(value) if isinstance(value, str) else f"{value:.6f}" if isinstance(value, float) else str(value)
                     for value in _cells(row, pair).values()]  # fmt: skip
            others_ = [escape(str(row.others.get(name, ""))) for name in self._others]
            yield "\t".join([*cells, *others_]) + "\n"


def _cells(row: Row, pair: Pair) -> dict[str, Any]:
    difference = pair.difference
    values = (
        row.item, row.number, pair.good.text, pair.bad.text, round(pair.good.log_prob, 6), round(pair.bad.log_prob, 6),
        round(difference, 6), round(pair.difference_per_token, 6), int(difference > 0), int(difference == 0), *pair.unknown,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
