"""Writes files of scores, of any size, with any number of ranks.

    tsv      a row for each word, token or sentence (`COLUMNS`), then the other columns of the input
    jsonl    an object for each sentence, with its words and tokens as lists; for a line with an error, the error

`sentence` is the number of the input's line (a TSV's header aside). `item` is that of the input; without one, the number of the document,
or of the sentence if each is scored by itself. Surprisals and entropies are in bits, log P in nats.
"""

import glob
import heapq
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from packlm.base import files, json_text
from packlm.distributed import Ranks
from packlm.scoring.sentences import CHUNK_SENTENCES, Sentence, SentenceScore

from .sentence_files import Row

COLUMNS = {
    "word": ("position", "word", "surprisal", "entropy", "entropy_reduction", "unknown"),
    "token": ("position", "token", "log_prob", "surprisal", "entropy"),
    "sentence": ("text", "tokens", "words", "unknown_words", "log_prob", "perplexity", "end_surprisal"),
}
"""The columns of a TSV after `item` and `sentence`, by what a row is."""

T = TypeVar("T")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def score_rows(
    rows: Iterable[Row], score: Callable[[Iterator[Sentence]], Iterator[SentenceScore]]
) -> Iterator[tuple[Row, SentenceScore | None]]:
    """Each row with its score, None for a row with an error, in order; `score` is `scoring.score` of sentences."""
    pending: deque[Row] = deque()

    def sentences() -> Iterator[Sentence]:
        for row in rows:
            pending.append(row)
            if not row.error:
                yield Sentence(row.text, row.starts_document)

    for sentence_score in score(sentences()):
        while pending[0].error:
            yield pending.popleft(), None
        yield pending.popleft(), sentence_score
    yield from ((row, None) for row in pending)


def rank_share(rows: Iterable[Row], ranks: Ranks) -> Iterator[Row]:
    """The rows of this rank: blocks are dealt to the ranks in turn, and end with documents."""
    block = count = 0
    for row in rows:
        if count >= CHUNK_SENTENCES and row.starts_document and not row.error:
            block, count = block + 1, 0
        count += not row.error
        if block % ranks.world == ranks.rank:
            yield row


class ScoreWriter:
    """Formats scores as lines of a file."""

    def __init__(self, format: str, rows: str, extra_columns: list[str]):
        """`format`: tsv or jsonl; `rows`: `score.rows`; `extra_columns`: columns of the input that are passed through."""
        columns = ("item", "sentence", *COLUMNS[rows])
        self._format, self._rows, self._extra_columns = format, rows, extra_columns
        names = [*columns, *(output_name(name, columns) for name in extra_columns)]
        self.header = "\t".join(names) + "\n" if format == "tsv" else ""

    def lines(self, row: Row, score: SentenceScore | None) -> Iterator[str]:
        """The lines of a row; a TSV has none for a row with an error."""
        if self._format == "jsonl":
            yield json_text.dumps(_record(row, score)) + "\n"
        elif score is not None:
            extra = [escape(str(row.extra.get(name, ""))) for name in self._extra_columns]
            for cells in _cells(score, self._rows):
                yield "\t".join([escape(str(row.item)), str(row.number), *cells, *extra]) + "\n"


def write(
    results: Iterable[tuple[Row, T]], lines: Callable[[Row, T], Iterator[str]], header: str, ranks: Ranks, out: Path
) -> None:  # fmt: skip
    """All ranks: writes the results of all ranks to one file, in the order of the rows, atomically.

    Args:
        lines: formats the result of a row.
    """
    if ranks.world == 1:
        with _lock(out), files.atomic(out, "w") as stream:
            stream.write(header)
            for row, result in results:
                stream.writelines(lines(row, result))
        return
    out = files.followed(out)
    parts = [out.with_name(f".{out.name}.part-{rank:05d}") for rank in range(ranks.world)]
    with _lock(out) if ranks.first else nullcontext():
        with files.atomic(parts[ranks.rank], "w") as stream:
            for row, result in results:
                stream.writelines(f"{row.number:015d}{line}" for line in lines(row, result))
        ranks.barrier()
        if ranks.first:
            with ExitStack() as stack:
                streams = [stack.enter_context(open(part, encoding="utf-8", newline="\n")) for part in parts]
                with files.atomic(out, "w") as merged:
                    merged.write(header)
                    merged.writelines(line[15:] for line in heapq.merge(*streams, key=lambda line: line[:15]))
            for part in out.parent.glob(f".{glob.escape(out.name)}.part-*"):  # of these ranks, and of more that were killed
                part.unlink()
        ranks.barrier()


def _lock(out: Path) -> AbstractContextManager[None]:
    """The lock of a file of results; none for a device or FIFO, beside which no file belongs."""
    return nullcontext() if files.is_stream(out) else files.lock((target := files.followed(out)).with_name(f".{target.name}.lock"), out)


def output_name(name: str, taken: Container[str]) -> str:
    """The name of a column or field that is passed through: with `input_` before it if the name is taken."""
    return f"input_{name}" if name in taken else name


def escape(text: str) -> str:
    """A text as a field of a TSV: tab, line feed, carriage return and backslash become `\\t`, `\\n`, `\\r` and `\\\\`."""
    return text.translate(_ESCAPES)


def _cells(score: SentenceScore, rows: str) -> Iterator[list[str]]:
    """The cells of each TSV row of a sentence."""
    if rows == "sentence":
        counts = [str(len(score.tokens)), str(len(score.words)), str(int(score.unknown.sum()))]
        yield [escape(score.text), *counts, *_decimals([score.log_prob, score.perplexity, score.end_surprisal])]
    elif rows == "token":
        numbers = zip(score.tokens, score.log_probs.tolist(), score.surprisals.tolist(), score.entropies.tolist(), strict=True)
        for position, (token, *values) in enumerate(numbers, 1):
            yield [str(position), escape(token), *_decimals(values)]
    else:
        columns = (score.unknown, score.word_surprisals, score.word_entropies, score.entropy_reductions)
        for position, (word, unknown, *values) in enumerate(zip(score.words, *(column.tolist() for column in columns), strict=True), 1):
            yield [str(position), escape(word), *_decimals(values), str(int(unknown))]


def _decimals(values: Iterable[float]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _record(row: Row, score: SentenceScore | None) -> dict[str, Any]:
    if score is None:
        return {"sentence": row.number, "error": row.error}
    fields = {
        "text": score.text, "log_prob": round(score.log_prob, 6), "perplexity": round(score.perplexity, 6),
        "words": score.words, "surprisals": _rounded(score.word_surprisals), "entropies": _rounded(score.word_entropies),
        "entropy_reductions": _rounded(score.entropy_reductions), "unknown": score.unknown.tolist(),
        "end_surprisal": round(score.end_surprisal, 6),
        "tokens": score.tokens, "token_surprisals": _rounded(score.surprisals), "token_entropies": _rounded(score.entropies),
    }  # fmt: skip
    extra = {output_name(name, fields): value for name, value in row.extra.items()}
    return {"item": row.item, "sentence": row.number} | fields | extra


def _rounded(values: Any) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
