"""Minimal pairs: how often the acceptable sentence of two is the more probable one (BLiMP: Warstadt et al. 2020).

    in     csv, tsv a header, then a pair a row in the columns `good` and `bad`
           jsonl    objects with `sentence_good` and `sentence_bad`, as BLiMP has them; json: an array of them
    out    tsv      a row for each pair (`COLUMNS`), then the other columns or fields of the input
           jsonl    an object for each pair, with the other fields of the input; for a line with an error, the error

Each sentence is scored by itself, `<eos>` included; log P is in nats. A tie counts as wrong; sentences with the same token ids (all
unknown words have the same one) always tie.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from packlm.base import json_text
from packlm.base.errors import RequestError
from packlm.scoring.sentences import Sentence, SentenceScore

from ..records import RecordFile
from ..score import files as score_files
from ..score.files import cell, output_names, passed_through
from ..score.sentence_files import ITEM, Reader, Row

FILE = "file"
"""The name of the file of a pair, where there are several."""
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


@dataclass(frozen=True)
class PairRow(Row):
    """A pair, or an error; `text` is the acceptable sentence."""

    bad: str = ""
    """The unacceptable sentence."""

    def group(self, by: str) -> str:
        """The value that the pair is grouped by: that of a column or field, its item or its file."""
        value = self.extra[by] if by in self.extra else {ITEM: self.item, FILE: self.file}[by]
        return value if isinstance(value, str) else json_text.dumps(value)


class PairReader(Reader):
    """The pairs of a file."""

    def __init__(self, records: RecordFile, good: str, bad: str, group: str):
        """
        Args:
            good, bad: the columns or fields of the sentences; by default `good` and `bad`, in JSON `sentence_good` and `sentence_bad`.
            group: the column or field by which pairs are grouped, `item` or `file`; empty for none.

        Raises:
            RequestError: a table without one of the columns, or a suite.
        """
        prefix = "" if records.format in ("csv", "tsv") else "sentence_"
        self.good, self.bad, self.group = good or f"{prefix}good", bad or f"{prefix}bad", group
        super().__init__(records, self.good, "pairs.good")
        if self.is_suite:
            raise RequestError(f"{records.name}: a SyntaxGym suite, which has no pairs; `packlm score` sums the surprisals of its regions")
        needed = {"pairs.bad": self.bad} | ({} if group in ("", ITEM, FILE) else {"pairs.group": group})
        for setting, column in needed.items() if records.columns else ():
            if column not in records.columns:
                raise RequestError(f"{records.name}: no column {column!r}; found {', '.join(records.columns)}; {setting} names it")

    def extra_columns(self) -> list[str]:
        return [column for column in super().extra_columns() if column != self.bad]

    def rows(self, documents: bool = False) -> Iterator[PairRow]:
        for row in super().rows(documents):
            error, extra = row.error or self._error(row), {**row.extra}
            bad = "" if error else extra.pop(self.bad)
            yield PairRow(**{**vars(row), "error": error, "extra": extra, "bad": bad})

    def _error(self, row: Row) -> str:
        bad = row.extra.get(self.bad)
        if not isinstance(bad, str):
            return f'not an object with a string "{self.bad}"'
        if self.group not in ("", ITEM, FILE) and self.group not in row.extra:
            return f'no "{self.group}" to group by'
        empty = [name for name, text in ((self.good, row.text), (self.bad, bad)) if not text.strip()]
        return f"an empty sentence in {' and '.join(empty)}" if empty else ""


def score_pairs(
    rows: Iterable[PairRow], score: Callable[[Iterator[Sentence]], Iterator[SentenceScore]]
) -> Iterator[tuple[PairRow, Pair | None]]:  # fmt: skip
    """Each row with its pair, None for a row with an error, in order; `score` is `scoring.score` of sentences."""

    def sentences() -> Iterator[PairRow]:
        for row in rows:
            yield row
            if not row.error:
                yield replace(row, text=row.bad)

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

    def __init__(self, format: str, extra_columns: Sequence[str], files: bool = False):
        """As `ScoreWriter`: tsv or jsonl; the columns and fields that a TSV passes through; whether it has a column with the file."""
        self._format, self._extra_columns, self._files = format, extra_columns, files
        columns = [*([FILE] if files else []), *COLUMNS]
        self.header = "\t".join([*columns, *output_names(extra_columns, columns).values()]) + "\n" if format == "tsv" else ""

    def lines(self, row: PairRow, pair: Pair | None) -> Iterator[str]:
        """The line of a pair; a TSV has none for a row with an error."""
        head = {FILE: row.file} if row.file else {}
        if self._format == "jsonl":
            item = {} if row.item is None else {ITEM: row.item}
            fields = head | (item | {"pair": row.number, "error": row.error} if pair is None else _fields(row, pair))
            yield json_text.dumps(fields | passed_through(row.extra, [*fields, "error"])) + "\n"
        elif pair is not None:
            values = (head | _fields(row, pair)).values()
            cells = [f"{value:.6f}" if isinstance(value, float) else cell(value) for value in values]
            extra = [cell(row.extra[name]) if name in row.extra else "" for name in self._extra_columns]
            yield "\t".join([*cells, *extra]) + "\n"


def _fields(row: Row, pair: Pair) -> dict[str, Any]:
    difference = pair.difference
    values = (
        row.item, row.number, pair.good.text, pair.bad.text, round(pair.good.log_prob, 6), round(pair.bad.log_prob, 6),
        round(difference, 6), round(pair.difference_per_token, 6), int(difference > 0), int(difference == 0), *pair.unknown,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
