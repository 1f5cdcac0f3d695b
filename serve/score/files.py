"""Writes files of scores, of any size, with any number of ranks.

    tsv      a row for each word, token, region or sentence (`COLUMNS`), then the other columns or fields of the input
    jsonl    an object for each sentence, with its words and tokens as lists; for a line with an error, the error

`sentence` is the number of the input's line (a table's header aside), `file` its file if there are several. `item` is that of the input;
without one, the number of the document, or of the sentence if each is scored by itself. Surprisals and entropies are in bits, log P in
nats. In TSV a value that is no string is written as JSON.
"""

import glob
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from packlm.base import files, json_text
from packlm.distributed import Ranks
from packlm.scoring.sentences import CHUNK_SENTENCES, Sentence, SentenceScore

from .sentence_files import R, Row

COLUMNS = {
    "word": ("position", "word", "surprisal", "entropy", "entropy_reduction", "unknown"),
    "token": ("position", "token", "log_prob", "surprisal", "entropy"),
    "region": ("region", "name", "content", "words", "surprisal", "unknown"),
    "sentence": ("text", "tokens", "words", "unknown_words", "log_prob", "perplexity", "end_surprisal"),
}
"""The columns of a TSV after `item` and `sentence`, by what a row is."""

T = TypeVar("T")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def score_rows(
    rows: Iterable[R], score: Callable[[Iterator[Sentence]], Iterator[T]]
) -> Iterator[tuple[R, T | None]]:
    """Each row with its score, None for a row with an error, in order; `score` gives one for each sentence."""
    pending: deque[R] = deque()

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


def rank_share(rows: Iterable[R], ranks: Ranks) -> Iterator[R]:
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

    def __init__(self, format: str, rows: str, extra_columns: Sequence[str], files: bool = False):
        """
        Args:
            format: tsv or jsonl.
            rows: `score.rows`, not auto.
            extra_columns: columns and fields of the input that a TSV passes through.
            files: whether a TSV has a column with the file.
        """
        self._format, self._rows, self._extra_columns, self._files = format, rows, extra_columns, files
        columns = [*(["file"] if files else []), "item", "sentence", *COLUMNS[rows]]
        self.header = "\t".join([*columns, *output_names(extra_columns, columns).values()]) + "\n" if format == "tsv" else ""

    def lines(self, row: Row, score: SentenceScore | None) -> Iterator[str]:
        """The lines of a row; a TSV has none for a row with an error."""
        if self._format == "jsonl":
            yield json_text.dumps(_record(row, score)) + "\n"
        elif score is not None:
            own = [*([escape(row.file)] if self._files else []), cell(row.item), str(row.number)]
            extra = [cell(row.extra[name]) if name in row.extra else "" for name in self._extra_columns]
            for cells in _cells(row, score, self._rows):
                yield "\t".join([*own, *cells, *extra]) + "\n"


def write(
    results: Iterable[tuple[R, T]], lines: Callable[[R, T], Iterator[str]], header: str, ranks: Ranks, out: Path
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
                stream.writelines(f"{row.position:015d}{line}" for line in lines(row, result))
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


def output_names(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """The output name of each column or field that is passed through: with `input_` before it, once or more, if it is taken."""
    names, free = list(names), {}
    used = {*taken}
    for name in sorted(names, key=lambda name: name in used):  # those that keep their names come first
        free[name] = name
        while free[name] in used:
            free[name] = f"input_{free[name]}"
        used.add(free[name])
    return {name: free[name] for name in names}


def cell(value: Any) -> str:
    """A value as a field of a TSV: a string as it is, anything else as JSON."""
    return escape(value if isinstance(value, str) else json_text.dumps(value))


def escape(text: str) -> str:
    """A text as a field of a TSV: tab, line feed, carriage return and backslash become `\\t`, `\\n`, `\\r` and `\\\\`."""
    return text.translate(_ESCAPES)


def _cells(row: Row, score: SentenceScore, rows: str) -> Iterator[list[str]]:
    """The cells of each TSV row of a sentence."""
    if rows == "region":
        for region in _regions(row, score):
            yield [cell(value) if name != "surprisal" else f"{value:.6f}" for name, value in region.items()]
    elif rows == "sentence":
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


def _regions(row: Row, score: SentenceScore) -> Iterator[dict[str, Any]]:
    """The regions of a sentence of a suite, as `COLUMNS` says: the surprisal of a region is the sum over its words, in bits."""
    end = 0
    for region in row.regions:
        begin, end = end, end + region.num_words
        values = (
            region.number, region.name, region.content, region.num_words, round(float(score.word_surprisals[begin:end].sum()), 6),
            int(score.unknown[begin:end].sum()),
        )  # fmt: skip
        yield dict(zip(COLUMNS["region"], values, strict=True))
    assert end == len(score.words)


def _record(row: Row, score: SentenceScore | None) -> dict[str, Any]:
    head = ({"file": row.file} if row.file else {}) | ({} if score is None and row.item is None else {"item": row.item})
    head |= {"sentence": row.number}
    if score is None:
        return head | {"error": row.error} | passed_through(row.extra, [*head, "error"])
    fields = {
        "text": score.text, "log_prob": round(score.log_prob, 6), "perplexity": round(score.perplexity, 6),
        "words": score.words, "surprisals": _rounded(score.word_surprisals), "entropies": _rounded(score.word_entropies),
        "entropy_reductions": _rounded(score.entropy_reductions), "unknown": score.unknown.tolist(),
        "end_surprisal": round(score.end_surprisal, 6),
        "tokens": score.tokens, "token_surprisals": _rounded(score.surprisals), "token_entropies": _rounded(score.entropies),
    }  # fmt: skip
    if row.regions:
        fields["regions"] = list(_regions(row, score))
    return head | fields | passed_through(row.extra, [*head, *fields, "error"])


def passed_through(extra: dict[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """The other fields of an input's record, under names that are not taken."""
    names = output_names(extra, taken)
    return {names[name]: value for name, value in extra.items()}


def _rounded(values: Any) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
