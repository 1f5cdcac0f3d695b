"""ARPA files of backoff n-grams, as SRILM, KenLM and speech recognizers write and read them: a line `log10 P <tab> words <tab> log10
backoff` for each n-gram. Here a word is a token of a model's vocabulary; `<s>` is the start symbol and `</s>` is `<eos>`.

Shapes: G n-grams of one length, n words of each.
"""

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from packlm.base import files, regular_files
from packlm.base.errors import PacklmError, RequestError
from packlm.interpolation.backoff import BackoffModel, NGrams, lookup

START, END = "<s>", "</s>"
NEVER = -99.0
"""log10 P of what is never predicted, by convention."""
CHUNK = 1 << 20
"""Lines written at a time."""


def write(path: Path, model: BackoffModel, tokens: Sequence[str], eos: int) -> None:
    """Writes an ARPA file atomically.

    Args:
        tokens: [V] the spelling of each id.
        eos: the id that is written `</s>`.

    Raises:
        RequestError: a token cannot be a word of an ARPA file.
    """
    names = [*tokens, START]
    names[eos] = END
    taken = {START, END}
    for id, name in enumerate(tokens):
        if id != eos and (not name or name in taken or any(character in " \t\n\r\v\f" for character in name)):
            raise RequestError(
                f"{path}: token {id}, {name!r}, cannot be a word of an ARPA file: it is empty, has white space or is {START}"
            )
    with files.atomic(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
        text.write("\\data\\\n" + "".join(f"ngram {length}={len(part.keys)}\n" for length, part in enumerate(model.orders, 1)))
        for line in _sections(model, pa.array(names)):
            text.write(line)
        text.write("\n\\end\\\n")
        text.flush()
        text.detach()


def _sections(model: BackoffModel, names: pa.Array) -> Iterator[str]:
    contexts = None
    for length, part in enumerate(model.orders, 1):
        yield f"\n\\{length}-grams:\n"
        words, numbers = part.keys % (model.vocab_size + 1), part.keys // (model.vocab_size + 1)
        ngrams = names.take(pa.array(words))
        if contexts is not None:
            ngrams = pc.binary_join_element_wise(contexts.take(pa.array(numbers)), ngrams, " ")
        contexts = ngrams
        with np.errstate(divide="ignore"):
            log_probs, backoffs = np.maximum(np.log10(part.probabilities), NEVER), np.log10(part.backoffs)
        for start in range(0, len(words), CHUNK):
            rows = slice(start, start + CHUNK)
            lines = zip(log_probs[rows].tolist(), ngrams[rows].to_pylist(), backoffs[rows].tolist(), strict=True)
            yield "".join(
                f"{log_prob:.9g}\t{ngram}\t{backoff:.9g}\n" if backoff else f"{log_prob:.9g}\t{ngram}\n"
                for log_prob, ngram, backoff in lines
            )


def read(path: Path, tokens: Sequence[str], eos: int) -> BackoffModel:
    """Reads an ARPA file. Ids that it does not list have probability 0.

    Args:
        tokens: [V] the spelling of each id.
        eos: the id of `</s>`.

    Raises:
        RequestError: words of the file are no tokens.
        PacklmError: it is no ARPA file; the message names the line.
    """
    names = [*tokens, START]
    names[eos] = END
    vocabulary, base = pa.array(names), len(names)
    orders: list[NGrams] = []
    for first_line, lines in _blocks(path):
        length = len(orders) + 1
        words, probabilities, backoffs = _parse(path, first_line, lines, length, vocabulary)
        numbers = words[:, 0].copy()
        for index in range(1, length - 1):
            numbers = lookup(orders[index].keys, numbers * base + words[:, index])
        if length > 1 and (numbers < 0).any():
            row = int(np.flatnonzero(numbers < 0)[0])
            raise PacklmError(f"{path}, line {first_line + row}: its first {length - 1} words are no n-gram of the file")
        keys = numbers if length == 1 else numbers * base + words[:, -1]
        if length == 1:
            probabilities, backoffs, keys = _all_words(keys, probabilities, backoffs, base)
        order = np.argsort(keys, kind="stable")
        if (repeated := np.flatnonzero(np.diff(keys[order]) == 0)).size:
            raise PacklmError(f"{path}, line {first_line + int(order[repeated[0] + 1])}: an n-gram that stands there twice")
        orders.append(NGrams(keys[order], probabilities[order], backoffs[order]))
    orders[0].probabilities[-1] = 0  # of the start symbol
    if not math.isclose(total := float(orders[0].probabilities.sum()), 1, abs_tol=1e-3):
        raise PacklmError(f"{path}: the probabilities of its unigrams sum to {total:.4f}, and should sum to 1")
    return BackoffModel(orders, base - 1)


def _blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of the n-grams of each length, whose headings and counts are checked."""
    with regular_files.open_binary(path) as stream:
        content = stream.read().split(b"\n")
    lines, counts, position = [line.strip() for line in content], list[int](), 0
    while position < len(lines) and lines[position] != b"\\1-grams:":
        if lines[position].startswith(b"ngram "):
            value = lines[position].partition(b"=")[2].strip()
            if not value.isdigit():
                raise PacklmError(f"{path}, line {position + 1}: expected `ngram N=COUNT`, found {content[position][:60]!r}")
            counts.append(int(value))
        position += 1
    if position == len(lines):
        raise PacklmError(f"{path}: no ARPA file: it has no \\1-grams:")
    for length, count in enumerate(counts, 1):
        while position < len(lines) and not lines[position]:
            position += 1
        if position >= len(lines) or lines[position] != f"\\{length}-grams:".encode():
            raise PacklmError(f"{path}, line {position + 1}: expected \\{length}-grams:, after {counts} n-grams as its head says")
        yield position + 2, lines[position + 1 : position + 1 + count]
        position += 1 + count
    while position < len(lines) and not lines[position]:
        position += 1
    if lines[position : position + 1] != [b"\\end\\"]:
        raise PacklmError(f"{path}, line {position + 1}: expected \\end\\: the file is cut off, or has more n-grams than its head says")


def _parse(
    path: Path, first_line: int, lines: list[bytes], length: int, vocabulary: pa.Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """([G, n] ids, [G] probabilities, [G] backoffs) of lines of n-grams."""
    try:
        text = pa.array([line.decode() for line in lines], pa.string())
    except UnicodeDecodeError as error:
        raise PacklmError(f"{path}: not UTF-8 ({error.object[:60]!r}); convert it, for example with iconv") from None
    fields = pc.ascii_split_whitespace(text)
    counts = pc.list_value_length(fields).to_numpy(zero_copy_only=False).astype(np.int64)
    wrong = np.flatnonzero((counts != length + 1) & (counts != length + 2))
    if len(wrong):
        row = int(wrong[0])
        raise PacklmError(f"{path}, line {first_line + row}: expected log10 P, {length} words, maybe a backoff; found {lines[row][:60]!r}")
    values, starts = fields.flatten(), np.cumsum(counts) - counts
    columns = [values.take(pa.array(starts + 1 + index)) for index in range(length)]
    ids = [pc.index_in(column, vocabulary) for column in columns]
    for column, found in zip(columns, ids, strict=True):
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
            raise RequestError(
                f"{path}, line {first_line + row}: {column[row].as_py()!r} is no token of the model (nor are {found.null_count - 1:,} "
                f"other words of {length}-grams): count n-grams in text whose other words are written as the model's unknown word"
            )
    has_backoff = counts == length + 2
    try:
        log_probs = values.take(pa.array(starts)).cast(pa.float64()).to_numpy()
        log_backoffs = np.zeros(len(counts))
        log_backoffs[has_backoff] = values.take(pa.array((starts + length + 1)[has_backoff])).cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise PacklmError(f"{path}: {length}-grams from line {first_line} on: not a number: {error}") from None
    words = np.stack([found.to_numpy(zero_copy_only=False).astype(np.int64) for found in ids], 1)
    return words, np.where(log_probs <= NEVER, 0.0, 10.0**log_probs), 10.0**log_backoffs


def _all_words(
    keys: np.ndarray, probabilities: np.ndarray, backoffs: np.ndarray, base: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The unigrams of all words; those that are not listed have probability 0."""
    missing = np.setdiff1d(np.arange(base), keys)
    zeros = np.zeros(len(missing))
    return np.append(probabilities, zeros), np.append(backoffs, zeros + 1), np.append(keys, missing)
