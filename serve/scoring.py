"""The probability of sentences: log P(E) of each, and the surprisal of each of its tokens.

A line is a sentence E = e_1 ... e_M that ends with `<eos>`; it is read from a zero state, starting after `<eos>`, so its score depends on
nothing around it. The empty line is the empty sentence, which is `<eos>` alone: P(E) = P(<eos> | <eos>), and the probabilities of
all sentences, that one included, sum to 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO

import numpy as np

from pipeline.errors import PacklmError
from preprocess.encoding import Encoder
from train.evaluation import sentence_losses
from train.model import LanguageModel
from train.views import Sentences

CHUNK_LINES = 4096
"""Lines encoded and sorted by length at a time; bounds memory, changes no number."""

COLUMNS = ("sentence", "position", "token", "log_prob", "surprisal", "sentence_log_prob")

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class Score:
    """How likely a sentence is."""

    tokens: list[str]
    """Its tokens, `<eos>` last."""
    log_probs: np.ndarray
    """[M] log P of each token after those before it, in nats."""

    @property
    def log_prob(self) -> float:
        """log P(E), in nats."""
        return float(self.log_probs.sum())

    @property
    def surprisals(self) -> np.ndarray:
        """[M] surprisal of each token, in bits (Hale 2001)."""
        return np.abs(self.log_probs) / np.log(2)


def score(model: LanguageModel, encoder: Encoder, lines: Iterable[str], batch_tokens: int) -> Iterator[Score]:
    """Scores each line as a sentence, in order; the white space around a line is no part of it.

    Raises:
        PacklmError: a score is infinite or not a number.
    """
    rest = iter(lines)
    while chunk := [line.strip() for line in islice(rest, CHUNK_LINES)]:
        ids, ends = encoder.encode_sentences(chunk)
        sentences = Sentences.from_arrays(ids, ends)
        for index, losses in sentence_losses(model, sentences, batch_tokens):
            if not np.isfinite(losses).all():
                raise PacklmError(f"the score of {chunk[index][:60]!r} is {losses.sum()}: the model's weights are unusable")
            yield Score([encoder.token(int(number)) for number in sentences.targets(index)], -losses)


def write_tsv(scores: Iterable[Score], stream: IO[str]) -> None:
    """Writes a row for each token: sentence and position count from 1, log P in nats, surprisal in bits."""
    stream.write("\t".join(COLUMNS) + "\n")
    for number, item in enumerate(scores, 1):
        total = f"{item.log_prob:.6f}"
        rows = zip(item.tokens, item.log_probs.tolist(), item.surprisals.tolist(), strict=True)
        for position, (token, log_prob, surprisal) in enumerate(rows, 1):
            stream.write(f"{number}\t{position}\t{escape(token)}\t{log_prob:.6f}\t{surprisal:.6f}\t{total}\n")


def escape(token: str) -> str:
    """A token for a field of a TSV: tab, line feed, carriage return and backslash as `\\t`, `\\n`, `\\r` and `\\\\`."""
    return token.translate(_ESCAPES)


def read_lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a UTF-8 file, without line ends and byte order mark; `PacklmError` naming the line that is not UTF-8."""
    for number, line in enumerate(stream, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise PacklmError(f"{name}, line {number}: not UTF-8 at byte {error.start + 1} of the line; convert the file first") from None
