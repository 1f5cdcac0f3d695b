"""Minimal pairs: how often the acceptable sentence of two is the more probable one (BLiMP: Warstadt et al. 2020).

    in     tsv      a header line, then a pair a line in the columns `good` and `bad`; no quoting
           jsonl    objects with `sentence_good` and `sentence_bad`, as BLiMP has them
    out    tsv      a row for each pair (`COLUMNS`), then the other columns of the input
           jsonl    an object for each pair, with the other fields of the input; for a line with an error, the error

Each sentence is scored by itself, `<eos>` included; log P is in nats. A tie counts as wrong; sentences with the same token ids (all
unknown words have the same one) always tie.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from packlm.base import json_text
from packlm.base.errors import RequestError
from packlm.scoring.sentences import Sentence, SentenceScore

from ..score import files as score_files
from ..score.files import escape, output_name
from ..score.sentence_files import Reader, Row

COLUMNS = (
    "item", "pair", "good", "bad", "good_log_prob", "bad_log_prob", "difference", "difference_per_token", "correct", "tie",
    "good_unknown_words", "bad_unknown_words",
)  # fmt: skip
"""The columns of a TSV before those passed through, and the fields of a record."""


@dataclass(frozen=True)
class Pair:
    """The scores of two sentences."""

    good: SentenceScore
    bad: SentenceScore

    @property
    def difference(self) -> float:
        """log P(good) - log P(bad), in nats: positive if the model is right."""
        return 0.0 if self._same_tokens else self.good.log_prob - self.bad.log_prob

    @property
    def difference_per_token(self) -> float:
        """The difference of log P per token, which does not favour the shorter sentence."""
        return 0.0 if self._same_tokens else float(self.good.log_probs.mean() - self.bad.log_probs.mean())

    @property
    def unknown(self) -> tuple[int, int]:
        """Unknown words of (good, bad)."""
        return int(self.good.unknown.sum()), int(self.bad.unknown.sum())

    @property
    def _same_tokens(self) -> bool:
        """Equal tokens are a tie, even if rounding in different batches makes their scores differ."""
        return self.good.tokens == self.bad.tokens


class PairReader:
    """The pairs of a stream; the header of a TSV is read at once."""

    def __init__(self, lines: IO[bytes], name: str, format: str, good: str, bad: str, group: str):
        """
        Args:
            name: name of the file, for messages and its suffix.
            format: `pairs.format`.
            good, bad: the columns or fields of the sentences; by default `good` and `bad`, in JSONL `sentence_good` and `sentence_bad`.
            group: the column or field by which pairs are grouped; empty for none.

        Raises:
            RequestError: a binary file, or a TSV without one of the columns.
        """
        if format == "auto":
            format = "jsonl" if name.endswith(".jsonl") else "tsv"
        prefix = "sentence_" if format == "jsonl" else ""
        self.good, self.bad, self.group = good or f"{prefix}good", bad or f"{prefix}bad", group
        self._reader = Reader(lines, name, format, self.good, False, "pairs.good")
        self.extra_columns = [column for column in self._reader.extra_columns if column != self.bad]
        """Columns of a TSV that are passed through."""
        for column, setting in ((self.bad, "pairs.bad"), (group, "pairs.group")):
            if format == "tsv" and column and column != "item" and column not in self._reader.extra_columns:
                columns = ", ".join([self.good, *self._reader.extra_columns])
                raise RequestError(f"{name}: no column {column!r}; found {columns}; {setting} names it")

    def __iter__(self) -> Iterator[Row]:
        """The lines; the sentences of a pair are `Row.text` and the field `bad` of `Row.extra`."""
        for row in self._reader:
            error = row.error or self._error(row)
            yield replace(row, error=error) if error else row

    def group_of(self, row: Row) -> str:
        """The group that a pair belongs to."""
        return str(row.item if self.group == "item" else row.extra[self.group])

    def _error(self, row: Row) -> str:
        bad = row.extra.get(self.bad)
        if not isinstance(bad, str):
            return f'not an object with a string "{self.bad}"'
        if self.group not in ("", "item") and self.group not in row.extra:
            return f'no "{self.group}" to group by'
        empty = [name for name, text in ((self.good, row.text), (self.bad, bad)) if not text.strip()]
        return f"an empty sentence in {' and '.join(empty)}" if empty else ""


def score_pairs(
    rows: Iterable[Row], bad: str, score: Callable[[Iterator[Sentence]], Iterator[SentenceScore]]
) -> Iterator[tuple[Row, Pair | None]]:  # fmt: skip
    """Each row with its pair, None for a row with an error, in order.

    Args:
        bad: the field of `Row.extra` with the unacceptable sentence.
        score: `scoring.score` of sentences.
    """

    def sentences() -> Iterator[Row]:
        for row in rows:
            yield row
            if not row.error:
                yield replace(row, text=row.extra[bad])

    results = score_files.score_rows(sentences(), score)
    for row, good_score in results:
        if good_score is None:
            yield row, None
        else:
            _, bad_score = next(results)
            assert bad_score is not None
            yield row, Pair(good_score, bad_score)


class PairWriter:
    """Formats pairs as lines of a file."""

    def __init__(self, format: str, reader: PairReader):
        self._format, self._extra_columns, self._bad = format, reader.extra_columns, reader.bad
        names = [*COLUMNS, *(output_name(name, COLUMNS) for name in self._extra_columns)]
        self.header = "\t".join(names) + "\n" if format == "tsv" else ""

    def lines(self, row: Row, pair: Pair | None) -> Iterator[str]:
        """The line of a pair; a TSV has none for a row with an error."""
        if self._format == "jsonl":
            extra = {output_name(name, COLUMNS): value for name, value in row.extra.items() if name != self._bad}
            record = {"pair": row.number, "error": row.error} if pair is None else _fields(row, pair) | extra
            yield json_text.dumps(record) + "\n"
        elif pair is not None:
            cells = [f"{value:.6f}" if isinstance(value, float) else escape(str(value)) for value in _fields(row, pair).values()]
            yield "\t".join([*cells, *(escape(str(row.extra.get(name, ""))) for name in self._extra_columns)]) + "\n"


def _fields(row: Row, pair: Pair) -> dict[str, Any]:
    difference = pair.difference
    values = (
        row.item, row.number, pair.good.text, pair.bad.text, round(pair.good.log_prob, 6), round(pair.bad.log_prob, 6),
        round(difference, 6), round(pair.difference_per_token, 6), int(difference > 0), int(difference == 0), *pair.unknown,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
