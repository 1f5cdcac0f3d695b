"""Text to ids and back, in one way for everybody: `preprocess` makes shards with it, `serve` reads prompts and plain text with it.

Shapes: N tokens, S sentences, D documents.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from pipeline import files
from pipeline.config import Corpus
from pipeline.dataset import EOS
from pipeline.errors import PacklmError
from preprocess import sentences, tokenizer

_BATCH_CHARACTERS = 1 << 19  # text encoded at a time: what tokenizers returns takes some hundred bytes a token


class Encoder:
    """A tokenizer as this project uses it: sentences become ids that end in `<eos>`, and no text becomes `<eos>` itself."""

    def __init__(self, model: Tokenizer, digest: str):
        self._tokenizer = model
        self.digest = digest
        """SHA-256 of `tokenizer.json`."""
        vocabulary = model.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos = vocabulary[EOS]
        self.unk = vocabulary.get(tokenizer.unknown(model) or "")
        self.lossless = tokenizer.lossless(model)
        """Whether decoding gives back any text to the letter."""

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """The encoder of a dataset or model folder, from its `tokenizer.json`."""
        path = Path(folder) / tokenizer.NAME
        return cls(tokenizer.load(path), files.sha256(path))

    @cached_property
    def spelled_eos(self) -> bool:
        """Whether a word spelled `<eos>` has the special token's id, as at word level; documents must then be rid of it."""
        return self.eos in self._tokenizer.encode(EOS, add_special_tokens=False).ids

    def encode_sentences(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes sentences one by one.

        Returns ([N] int64 ids end to end, `<eos>` after each sentence; [S] int64 index after each `<eos>`).
        """
        runs, lengths = [], []
        for batch in _batches(texts):
            encodings = self._encode(batch)
            lengths.append(np.fromiter((len(encoding) for encoding in encodings), np.int64, len(encodings)))
            flat = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int64, int(lengths[-1].sum()))
            flat = self._without_eos(flat)
            ends = np.cumsum(lengths[-1] + 1)
            run = np.full(len(flat) + len(batch), self.eos, np.int64)
            inside = np.ones(len(run), bool)
            inside[ends - 1] = False
            run[inside] = flat
            runs.append(run)
        if not runs:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(runs), np.cumsum(np.concatenate(lengths) + 1)

    def encode_open(self, text: str) -> np.ndarray:
        """Encodes the beginning of a sentence, such as a prompt: [N] int64 ids, without `<eos>`."""
        return self._without_eos(np.array(self._encode([text])[0].ids, np.int64))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. `<eos>` is no text: it is left out at both ends, and between two sentences it becomes a line feed."""
        runs: list[list[int]] = [[]]
        for value in ids:
            if value == self.eos:
                runs.append([])
            else:
                runs[-1].append(int(value))
        while len(runs) > 1 and not runs[-1]:
            runs.pop()
        while len(runs) > 1 and not runs[0]:
            runs.pop(0)
        return "\n".join(self._tokenizer.decode(run, skip_special_tokens=False) for run in runs)

    def token(self, id: int) -> str:
        """One token for people to read: its text, or `\\x..` for bytes that are no whole character by themselves."""
        spelled = self._tokenizer.id_to_token(int(id))
        if spelled is None:
            raise PacklmError(f"the tokenizer has no token {id}; its ids go from 0 to {self.vocab_size - 1}")
        if id == self.eos or not self.lossless:
            return spelled
        return bytes(_BYTES[character] for character in spelled).decode(errors="backslashreplace")

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def _without_eos(self, ids: np.ndarray) -> np.ndarray:
        """A spelled `<eos>` that nobody asked about becomes the unknown word."""
        if self.unk is not None:
            ids[ids == self.eos] = self.unk
        elif (ids == self.eos).any():
            raise PacklmError(f"text that spells {EOS} gets the id of the end of a sentence, and the tokenizer has no unknown word instead")
        return ids


@dataclass(frozen=True)
class Encoded:
    """Some documents as ids. Texts are counted as they were, white space between sentences included."""

    ids: np.ndarray
    """[N] ids of all sentences end to end, each ending in `<eos>`."""
    ends: np.ndarray
    """[S] index in `ids` after each sentence."""
    opens: np.ndarray
    """[N] bool: the token is the first of its document."""
    documents: list[str]
    """[S] name of each sentence's document."""
    positions: np.ndarray
    """[S] number of the sentence in its document, from 0."""
    sentence_words: np.ndarray
    """[S] white-space words that begin in the sentence: they add up to those of the document."""
    sentence_bytes: np.ndarray
    """[S] UTF-8 bytes of the sentence itself."""
    leads: list[str]
    """[S] white space that opened the document, on its first sentence."""
    gaps: list[str]
    """[S] white space that followed the sentence."""
    num_documents: int
    num_words: int
    """White-space words of the documents."""
    num_bytes: int
    """UTF-8 bytes of the documents."""


def encode_documents(documents: Iterable[tuple[str, str]], rules: Corpus, encoder: Encoder) -> Encoded:
    """Cuts documents, (name, text) each, into sentences by `rules` and encodes them; all of them together must fit in memory."""
    texts: list[str] = []
    gaps: list[str] = []
    leads: list[str] = []
    names: list[str] = []
    positions: list[int] = []
    num_documents = num_words = num_bytes = 0
    for name, text in documents:
        lead, found = sentences.split(text, rules.sentences, rules.language)
        texts += [sentence for sentence, _ in found]
        gaps += [gap for _, gap in found]
        leads += [lead, *[""] * (len(found) - 1)]
        names += [name] * len(found)
        positions += range(len(found))
        num_documents += 1
        num_words += len(text.split())
        num_bytes += len(text.encode())
    ids, ends = encoder.encode_sentences(texts)
    first = np.array(positions, np.int32) == 0
    opens = np.zeros(len(ids), bool)
    opens[np.concatenate([[0], ends[:-1]])[first].astype(np.int64)] = True
    # Where no white space lies between two sentences, the second begins inside a word that the first has counted.
    joined = [position > 0 and not gap for position, gap in zip(positions, ["", *gaps], strict=False)]
    sentence_words = np.array([len(text.split()) for text in texts], np.int32) - np.array(joined, np.int32)
    sentence_bytes = np.array([len(text.encode()) for text in texts], np.int32)
    return Encoded(
        ids, ends, opens, names, np.array(positions, np.int32), sentence_words, sentence_bytes, leads, gaps,
        num_documents, num_words, num_bytes,
    )  # fmt: skip


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of about `_BATCH_CHARACTERS` together, at least one each."""
    start = size = 0
    for index, text in enumerate(texts):
        if index > start and size + len(text) > _BATCH_CHARACTERS:
            yield texts[start:index]
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable Latin-1 for itself, U+0100 and on for the rest."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _bytes_of_characters()
