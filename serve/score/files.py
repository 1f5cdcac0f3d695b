"""Files of scores, of any size, whatever the number of ranks.

    tsv      a row a word, a token or a sentence (`COLUMNS`), then the other columns of the input
    jsonl    an object a sentence, with its words and tokens as lists; or, for a line that cannot be read, why

`sentence` numbers the sentences as the input's lines (a TSV's header aside). `item` is the input's; without one, the number of the
document, or of the sentence where each is read by itself. Surprisals and entropies are in bits, log P in nats.
"""

import heapq
import json
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from packlm.base import files
from packlm.distributed import Ranks
from packlm.scoring.sentences import CHUNK_SENTENCES, Sentence, SentenceScore

from .sentence_files import Row

COLUMNS = {
    "word": ("position", "word", "surprisal", "entropy", "entropy_reduction", "unknown"),
    "token": ("position", "token", "log_prob", "surprisal", "entropy"),
    "sentence": ("text", "tokens", "words", "unknown_words", "log_prob", "perplexity", "end_surprisal"),
}
"""The columns of a TSV, by what a row is; each after `item` and `sentence`."""

T = TypeVar("T")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def scored(
    rows: Iterable[Row], score: Callable[[Iterator[Sentence]], Iterator[SentenceScore]]
) -> Iterator[tuple[Row, SentenceScore | None]]:
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


class ScoreWriter:
    """Scores as lines of a file."""

    def __init__(self, kind: str, rows: str, others: list[str]):
        """`kind`: tsv or jsonl; `rows`: `score.rows`; `others`: columns of the input, `input_` before those whose name is taken."""
        own = ("item", "sentence", *COLUMNS[rows])
        self.kind, self._rows, self._others = kind, rows, others
        names = [*own, *(free(name, own) for name in others)]
        self.header = "\t".join(names) + "\n" if kind == "tsv" else ""

    def lines(self, row: Row, score: SentenceScore | None) -> Iterator[str]:
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


def _cells(score: SentenceScore, rows: str) -> Iterator[list[str]]:
    """The cells of each TSV row of a sentence."""
    if rows == "sentence":
        counts = [str(len(score.tokens)), str(len(score.words)), str(int(score.unknown.sum()))]
        yield [escape(score.text), *counts, *_decimals([score.log_prob, score.perplexity, score.end_surprisal])]
    elif rows == "token":
        columns = (score.log_probs, score.surprisals, score.entropies)
        for position, (token, *values) in enumerate(zip(score.tokens, *(column.tolist() for column in columns), strict=True), 1):
            yield [str(position), escape(token), *_decimals(values)]
    else:
        numbers = (score.unknown, score.word_surprisals, score.word_entropies, score.entropy_reductions)
        for position, (word, unknown, *values) in enumerate(zip(score.words, *(column.tolist() for column in numbers), strict=True), 1):
            yield [str(position), escape(word), *_decimals(values), str(int(unknown))]


def _decimals(values: Iterable[float]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _record(row: Row, score: SentenceScore | None) -> dict[str, Any]:
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
