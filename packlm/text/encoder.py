"""Text to ids and back, in one way for everybody: `preprocess` makes shards with it, `serve` reads prompts and plain text with it.

Shapes: N tokens, S sentences, D documents.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.dataset import EOS
from packlm.text import encoding_cache, overlong, pretokens, sentences, tokenizer
from packlm.text.document_block import DocumentBlock

log = logging.getLogger("packlm")


class Encoder:
    """A tokenizer as this project uses it: sentences become ids that end in `<eos>`, and no text becomes `<eos>` itself."""

    def __init__(self, model: Tokenizer, digest: str):
        self._tokenizer = model
        self.digest = digest
        """SHA-256 of `tokenizer.json`."""
        vocabulary = model.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        self.id_type = dataset.id_type(self.vocab_size)
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
    def spelled_eos(self) -> str:
        """A regular expression of the words that would get the special token's id, as `<eos>` does at word level; empty where none would.

        Documents must be rid of them. Where the tokenizer turns text into lower case, `<EOS>` is one too.
        """
        if not self._has_eos(EOS):
            return ""
        return re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", EOS) if self._has_eos(EOS.upper()) else EOS

    def _has_eos(self, text: str) -> bool:
        return self.eos in self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_sentences(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes sentences one by one.

        Returns ([N] ids end to end, `<eos>` after each sentence; [S] int64 index after each `<eos>`).
        """
        encoded = [text.encode() for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)]
        return self.encode_spans(np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

    def encode_spans(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, edges: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes sentences in UTF-8 text, one by one.

        Args:
            data: uint8 bytes.
            starts, ends: [S] int64, rising: where in `data` each sentence is.
            edges: `word_edges` of the text, where they are known.

        Returns ([N] ids end to end, `<eos>` after each sentence, of `id_type`; [S] int64 index after each `<eos>`).
        """
        parts = (starts, ends, None) if self._plainly else pretokens.whole_slices(data, starts, ends, self._normalized)
        runs, lengths = [np.empty(0, self.id_type)], [np.empty(0, np.int64)]
        for first, last in pretokens.slices(*parts[:2]):
            run, counts = self._encode_slice(data, parts[0][first:last], parts[1][first:last], edges)
            runs.append(run)
            lengths.append(counts)
        ids, after = np.concatenate(runs), np.cumsum(np.concatenate(lengths))
        if parts[2] is not None and parts[2].any():
            goes_on = parts[2]
            ids = np.delete(ids, after[goes_on] - 1)
            after = (after - np.cumsum(goes_on))[~goes_on]
        return ids, after

    def offsets(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of sentences begin in their text: [N] int64 characters, `<eos>` at the end; ids and order are those of
        `encode_sentences`, whose [S] ends come beside."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        starts = [np.array([*(start for start, _ in item.offsets), len(text)], np.int64) for item, text in zip(found, texts, strict=True)]
        return np.concatenate([np.empty(0, np.int64), *starts]), np.cumsum([len(own) for own in starts], dtype=np.int64)

    @cached_property
    def opens_word(self) -> np.ndarray | None:
        """[V] bool: which tokens can only follow the end of a word: those that begin with white space, and `<eos>`.

        None where tokens do not say so: white space is no part of them.
        """
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        opening = np.zeros(self.vocab_size, bool)
        for spelled, id in vocabulary.items():
            text = self.token(id) if self.lossless else spelled.replace("▁", " ")
            opening[id] = text[:1].isspace()
        if not opening.any():
            return None
        opening[self.eos] = True
        return opening

    def encode_open(self, text: str) -> np.ndarray:
        """Encodes the beginning of a sentence, such as a prompt: [N] int64 ids, without `<eos>`."""
        return self._without_eos(encoding_cache.encode(self._tokenizer, [text])[0])

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

    @cached_property
    def spellings(self) -> list[bytes]:
        """[V] what each token adds to the text before it, in UTF-8; of `<eos>`, the line feed between two sentences."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        found = [b""] * self.vocab_size
        anchor = min((id for id in vocabulary.values() if id not in (self.eos, self.unk)), default=self.eos)
        before = self._tokenizer.decode([anchor], skip_special_tokens=False)
        for spelled, id in vocabulary.items():
            if self.lossless:
                found[id] = bytes(_BYTES[character] for character in spelled if character in _BYTES)
            else:
                found[id] = self._tokenizer.decode([anchor, id], skip_special_tokens=False).removeprefix(before).encode()
        found[self.eos] = b"\n"
        return found

    @cached_property
    def _plainly(self) -> bool:
        """Whether sentences must be encoded whole; the log says why."""
        why = pretokens.unsafe(self._tokenizer)
        if why is not None:
            log.info("the tokenizer takes whole sentences, which is slower than word by word: %s", why)
        return why is not None

    @cached_property
    def _normalized(self) -> bool:
        return self._tokenizer.normalizer is not None

    @cached_property
    def _memo(self) -> encoding_cache.EncodingCache:
        return encoding_cache.EncodingCache(self._tokenizer, self.eos, self._without_eos, self.id_type)

    def _encode_slice(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray, edges: np.ndarray | None) -> encoding_cache.Flat:
        """([N] ids of all sentences, `<eos>` after each; [S] how many of them belong to each)."""
        if not self._plainly:
            return self._memo.ids(pretokens.chunks(data, starts, ends, self._normalized, edges))
        texts = [data[start:end].tobytes().decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        ids, lengths = encoding_cache.encode(self._tokenizer, texts)
        after = np.cumsum(lengths + 1)
        with_ends = np.full(len(ids) + len(texts), self.eos, self.id_type)
        inside = np.ones(len(with_ends), bool)
        inside[after - 1] = False
        with_ends[inside] = self._without_eos(ids)
        return with_ends, lengths + 1

    def _without_eos(self, ids: np.ndarray) -> np.ndarray:
        """A spelled `<eos>` that nobody asked about becomes the unknown word."""
        if self.unk is not None:
            ids[ids == self.eos] = self.unk
        elif (ids == self.eos).any():
            raise PacklmError(f"text that spells {EOS} gets the id of the end of a sentence, and the tokenizer has no unknown word instead")
        return ids


@dataclass(frozen=True)
class Encoded:
    """Some documents as ids. Texts are counted as they were, white space between sentences included.

    A row is a sentence; of one that was split because it is overlong, every piece is a row.
    """

    ids: np.ndarray
    """[N] uint16 or uint32: ids of all rows end to end, each ending in `<eos>`."""
    ends: np.ndarray
    """[S] int64: index in `ids` after each row."""
    document_starts: np.ndarray
    """[D] int64: index in `ids` of the first token of each document that has a sentence."""
    documents: np.ndarray
    """[S] int32: index of the row's document in the texts."""
    positions: np.ndarray
    """[S] int32: number of the row in its document, from 0."""
    words: np.ndarray
    """[S] int32: white-space words that begin in the row: they add up to those of the document."""
    bytes: np.ndarray
    """[S] int32: UTF-8 bytes of the row itself."""
    joined: np.ndarray
    """[S] bool: the sentence goes on in the next row."""
    leads: pa.StringArray
    """[S] white space that opened the document, on its first row."""
    gaps: pa.StringArray
    """[S] white space that followed the row."""
    num_documents: int
    """Documents that have a sentence."""
    num_words: int
    """White-space words of all texts."""
    num_bytes: int
    """UTF-8 bytes of all texts."""
    overlong: int
    """Sentences of more than `rules.max_tokens` tokens, split or not."""


def encode_documents(texts: DocumentBlock, rules: Corpus, encoder: Encoder, pieces: np.ndarray | None = None) -> Encoded:
    """Cuts documents into sentences by `rules` and encodes them; all of them together must fit in memory.

    Args:
        pieces: what `sentences.piece_starts` found, for whoever has it already.

    Raises:
        PacklmError: an overlong sentence, under on_overlong = "error".
    """
    if pieces is None:
        pieces = sentences.piece_starts(texts, rules.sentences, rules.language)
    found = sentences.spans(texts, pieces)
    ids, ends = encoder.encode_spans(texts.data, found.starts, found.ends, texts.edges)
    rows = overlong.SplitRows(found, ids, ends, np.zeros(len(ends), bool))
    count = 0
    if rules.max_tokens is not None:
        count = overlong.count(rows, rules.max_tokens)
        if count and rules.on_overlong == "error":
            raise PacklmError(overlong.complaint(texts, rows, rules.max_tokens))
        if count and rules.on_overlong == "split":
            rows = overlong.split(texts, rows, rules.max_tokens, encoder.encode_spans)
    starts, stops, documents, words = rows.spans
    first = np.diff(documents, prepend=-1) != 0
    opening = np.flatnonzero(first)
    positions = np.arange(len(starts)) - np.repeat(opening, np.diff(opening, append=len(starts)))
    behind = np.where(np.append(first[1:], True)[: len(starts)], texts.ends[documents], np.append(starts[1:], 0)[: len(starts)])
    before = np.where(first, texts.starts[documents], starts)
    return Encoded(
        ids=rows.ids,
        ends=rows.ends,
        document_starts=np.concatenate([np.zeros(1, np.int64), rows.ends])[opening],
        documents=documents,
        positions=positions.astype(np.int32),
        words=words,
        bytes=(stops - starts).astype(np.int32),
        joined=rows.joined,
        leads=_strings(texts.data, before, starts),
        gaps=_strings(texts.data, stops, behind),
        num_documents=len(opening),
        num_words=int(words.sum(dtype=np.int64)),
        num_bytes=len(texts.data),
        overlong=count,
    )


def _strings(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.StringArray:
    """The text from each start to its end, as Arrow strings."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int32)
    text = pretokens.gather(data, starts, ends - starts)
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(text))


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable Latin-1 for itself, U+0100 and on for the rest."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _bytes_of_characters()
