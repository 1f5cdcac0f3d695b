"""Files of sentences in, files of scores out, of any size.

    in     text     a sentence a line. Read as documents, an empty line ends a document; otherwise it is the empty sentence.
           tsv      a line of column names, then a sentence a line in the column `text`; no quoting. Rows that follow each other with
                    one `item` are a document; without such a column each is one.
           jsonl    objects with `text`, and `item` if wanted.
    out    tsv      a row a word, a token or a sentence (`COLUMNS`), then the other columns of the input
           jsonl    an object a sentence, with its words and tokens as lists; or, for a line that cannot be read, why

`sentence` numbers the sentences as the input's lines (a TSV's header aside). `item` is the input's; without one, the number of the
document, or of the sentence where each is read by itself. Surprisals and entropies are in bits, log P in nats.
"""

import heapq
import json
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipeline import files
from pipeline.errors import RequestError
from serve.scoring import CHUNK_SENTENCES, Score, Sentence
from train.distributed import Ranks

COLUMNS = {
    "word": ("position", "word", "surprisal", "entropy", "entropy_reduction", "unknown"),
    "token": ("position", "token", "log_prob", "surprisal", "entropy"),
    "sentence": ("text", "tokens", "words", "unknown_words", "log_prob", "perplexity", "end_surprisal"),
}
"""The columns of a TSV, by what a row is; each after `item` and `sentence`."""

T = TypeVar("T")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class Row:
    """A line of the input: a sentence, or why it is none."""

    number: int
    """Counts from 1."""
    text: str = ""
    opens: bool = True
    """Whether it opens a document."""
    item: Any = None
    others: dict[str, Any] = field(default_factory=dict)
    """What else the line holds, to be passed through."""
    error: str = ""


class Reader:
    """The rows of a stream; what the header of a TSV says is known at once."""

    def __init__(
        self, stream: Iterable[bytes], name: str, kind: str, text_field: str, documents: bool, setting: str = "score.text_field"
    ):
        """
        Args:
            name: of the file, for messages and its ending; `-` is standard input.
            kind: `score.format`.
            documents: whether sentences are read after one another.
            setting: the one that names `text_field`, for messages.

        Raises:
            RequestError: a binary file, or a TSV without a column `text_field`.
        """
        self._field, self._documents = text_field, documents
        self.others: list[str] = []
        """Columns of a TSV that are passed through."""
        lines = iter(stream)
        first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
        if (place := first.find(b"\0")) >= 0:
            raise RequestError(f"{name}: not a text file: byte {place + 1} is NUL")
        self.kind = kind if kind != "auto" else _kind(name, first)
        self._lines = iter(_chain(first, lines))
        if self.kind == "tsv":
            self._columns = decoded(next(self._lines, b""))[0].split("\t")
            if text_field not in self._columns or len(set(self._columns)) < len(self._columns):
                there = ", ".join(self._columns)
                raise RequestError(f"{name}: no column {text_field!r}, or one twice; there are {there}; {setting} names the text's")
            self.others = [column for column in self._columns if column not in (text_field, "item")]

    def __iter__(self) -> Iterator[Row]:
        read = {"text": self._text, "tsv": self._tsv, "jsonl": self._json}[self.kind]
        before, ended, documents = object(), True, 0
        for number, line in enumerate(self._lines, 1):
            text, error = decoded(line)
            row = Row(number, error=error) if error else read(number, text)
            if row.error:
                yield row
                continue
            if self.kind == "text" and self._documents:
                ended = ended or not text.strip()
                if not text.strip():
                    continue
            opens = not self._documents or ended if self.kind == "text" else row.item is None or row.item != before
            before, ended, documents = row.item, False, documents + opens
            item = row.item if row.item is not None else documents if self._documents else number
            yield Row(number, row.text, opens, item, row.others)

    def _text(self, number: int, line: str) -> Row:
        return Row(number, line)

    def _tsv(self, number: int, line: str) -> Row:
        values = line.split("\t")
        if len(values) != len(self._columns):
            return Row(number, error=f"{len(values)} columns, the header has {len(self._columns)}")
        cells = dict(zip(self._columns, values, strict=True))
        return Row(number, cells[self._field], item=cells.get("item"), others={name: cells[name] for name in self.others})

    def _json(self, number: int, line: str) -> Row:
        value, wrong = json_value(line)
        if wrong:
            return Row(number, error=wrong)
        if not isinstance(value, dict) or not isinstance(value.get(self._field), str):
            return Row(number, error=f'not an object with a "{self._field}" that is a string')
        others = {name: other for name, other in value.items() if name not in (self._field, "item")}
        return Row(number, value[self._field], item=value.get("item"), others=others)


def scored(rows: Iterable[Row], score: Callable[[Iterator[Sentence]], Iterator[Score]]) -> Iterator[tuple[Row, Score | None]]:
    """Each row with its score, or without one where it is an error, in order. `score`: `scoring.score` of sentences."""
    waiting: deque[Row] = deque()

    def sentences() -> Iterator[Sentence]:
        for row in rows:
            waiting.append(row)
            if not row.error:
                yield Sentence(row.text, row.opens)

    for found in score(sentences()):
        while waiting[0].error:
            yield waiting.popleft(), None
        yield waiting.popleft(), found
    yield from ((row, None) for row in waiting)


def share(rows: Iterable[Row], ranks: Ranks) -> Iterator[Row]:
    """The rows of a rank: blocks of them in turn, each ending with a document."""
    block = count = 0
    for row in rows:
        if count >= CHUNK_SENTENCES and row.opens and not row.error:
            block, count = block + 1, 0
        count += not row.error
        if block % ranks.world == ranks.rank:
            yield row


class Writer:
    """Scores as lines of a file."""

    def __init__(self, kind: str, rows: str, others: list[str]):
        """`kind`: tsv or jsonl; `rows`: `score.rows`; `others`: columns of the input, `input_` before those whose name is taken."""
        own = ("item", "sentence", *COLUMNS[rows])
        self.kind, self._rows, self._others = kind, rows, others
        names = [*own, *(free(name, own) for name in others)]
        self.header = "\t".join(names) + "\n" if kind == "tsv" else ""

    def lines(self, row: Row, score: Score | None) -> Iterator[str]:
        """The lines of a row; a TSV has none for a row that could not be read."""
        if self.kind == "jsonl":
            yield json.dumps(_record(row, score), ensure_ascii=False) + "\n"
        elif score is not None:
            others = [escape(str(row.others.get(name, ""))) for name in self._others]
            for cells in _cells(score, self._rows):
                yield "\t".join([escape(str(row.item)), str(row.number), *cells, *others]) + "\n"


def write(
    found: Iterable[tuple[Row, T]], lines: Callable[[Row, T], Iterator[str]], header: str, ranks: Ranks, out: Path
) -> None:  # fmt: skip
    """All ranks: writes what all ranks found to one file, in the order of the rows; whole or not at all.

    Args:
        lines: the lines of a row and what was found for it.
    """
    parts = [out.with_name(f".{out.name}.part-{rank:05d}") for rank in range(ranks.world)]
    with files.atomic(parts[ranks.rank], "w") as stream:
        for row, value in found:
            stream.writelines(f"{row.number:015d}{line}" for line in lines(row, value))
    ranks.barrier()
    if ranks.first:
        with ExitStack() as stack:
            streams = [stack.enter_context(open(part, encoding="utf-8", newline="\n")) for part in parts]
            with files.atomic(out, "w") as whole:
                whole.write(header)
                whole.writelines(line[15:] for line in heapq.merge(*streams, key=lambda line: line[:15]))
        for part in parts:
            part.unlink()
    ranks.barrier()


def free(name: str, taken: Container[str]) -> str:
    """What a column or field that is passed through is called: `input_` before it, if we use its name."""
    return f"input_{name}" if name in taken else name


def escape(text: str) -> str:
    """A text for a field of a TSV: tab, line feed, carriage return and backslash as `\\t`, `\\n`, `\\r` and `\\\\`."""
    return text.translate(_ESCAPES)


def _cells(score: Score, rows: str) -> Iterator[list[str]]:
    """The cells of each TSV row of a sentence."""
    if rows == "sentence":
        counts = [str(len(score.tokens)), str(len(score.words)), str(int(score.unknown.sum()))]
        yield [escape(score.text), *counts, *(f"{value:.6f}" for value in (score.log_prob, score.perplexity, score.end_surprisal))]
    elif rows == "token":
        columns = (score.log_probs, score.surprisals, score.entropies)
        for position, (token, *values) in enumerate(zip(score.tokens, *(column.tolist() for column in columns), strict=True), 1):
            yield [str(position), escape(token), *(f"{value:.6f}" for value in values)]
    else:
        numbers = (score.word_surprisals, score.word_entropies, score.entropy_reductions)
        for position, (word, *values) in enumerate(zip(score.words, *(column.tolist() for column in numbers), strict=True), 1):
            unknown = str(int(score.unknown[position - 1]))
            yield [str(position), escape(word), *(f"{value:.6f}" for value in values), unknown]


def _record(row: Row, score: Score | None) -> dict[str, Any]:
    if score is None:
        return {"sentence": row.number, "error": row.error}
    found = {
        "text": score.text, "log_prob": round(score.log_prob, 6), "perplexity": round(score.perplexity, 6),
        "words": score.words, "surprisals": _rounded(score.word_surprisals), "entropies": _rounded(score.word_entropies),
        "entropy_reductions": _rounded(score.entropy_reductions), "unknown": score.unknown.tolist(),
        "end_surprisal": round(score.end_surprisal, 6),
        "tokens": score.tokens, "token_surprisals": _rounded(score.surprisals), "token_entropies": _rounded(score.entropies),
    }  # fmt: skip
    others = {free(name, found): value for name, value in row.others.items()}
    return {"item": row.item, "sentence": row.number} | found | others


def _rounded(values: Any) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _kind(name: str, first: bytes) -> str:
    ending = Path(name).suffix
    if ending in (".tsv", ".jsonl"):
        return ending[1:]
    return "jsonl" if name == "-" and first.lstrip().startswith(b"{") else "text"


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def json_value(line: str) -> tuple[Any, str]:
    """(value, "") of a line of JSON, or (None, what is wrong)."""
    try:
        value = json.loads(line, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # fails on half a surrogate pair, which JSON can spell but no file can hold
    except (ValueError, RecursionError) as error:
        return None, f"not JSON: {error}"
    return value, ""


def decoded(line: bytes) -> tuple[str, str]:
    """(text without its line end, "") or ("", what is wrong)."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 at byte {error.start + 1}"
    return ("", "holds a NUL character") if "\0" in text else (text, "")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")
