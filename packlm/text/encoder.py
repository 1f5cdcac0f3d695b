"""Text to ids and back: the one way for shards, prompts and plain text alike. Shapes: N tokens, S sentences, V vocabulary."""

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from packlm import dataset
from packlm.base import verified_files
from packlm.base.errors import PacklmError
from packlm.dataset import EOS
from packlm.text import pretokens, tokenizer, tokenizer_json
from packlm.text.encoding_cache import EncodingCache
from packlm.text.joined_encoding import encode

log = logging.getLogger("packlm")


class Encoder:
    """Encodes sentences with a tokenizer: ids end in `<eos>`, and no text encodes to `<eos>` itself."""

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
        """Whether decoding reproduces any text exactly."""

    @classmethod
    def load(cls, folder: Path, sha256: str | None = None) -> "Encoder":
        """The encoder of a dataset or model folder, from its `tokenizer.json`.

        Args:
            sha256: the digest that the file must have, where it is known.

        Raises:
            RequestError: no such file, not a tokenizer, or one without `<eos>`.
            PacklmError: the file has another digest.
        """
        path = Path(folder) / tokenizer.NAME
        text = tokenizer_json.read(path)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if sha256 is not None:
            verified_files.compare(path, sha256, digest)
        return cls(tokenizer.parse(text, str(path)), digest)

    @cached_property
    def spelled_eos(self) -> str:
        """Regular expression of the words that would encode to the id of `<eos>`, as `<eos>` does at word level; empty if there are none.

        Cleaning removes them from documents. With a tokenizer that lowercases, `<EOS>` is one too.
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
        """Encodes sentences of a UTF-8 text, one by one.

        Args:
            data: uint8, the text.
            starts, ends: [S] int64, ascending: bytes [start, end) of each sentence.
            edges: `word_edges` of the text, if known.

        Returns ([N] ids end to end, `<eos>` after each sentence, of `id_type`; [S] int64 index after each `<eos>`).
        """
        continues = np.zeros(len(starts), bool)
        if self._is_split:
            starts, ends, continues = pretokens.split_long(data, starts, ends, self._normalized)
        runs, lengths = [np.empty(0, self.id_type)], [np.empty(0, np.int64)]
        for first, last in pretokens.slices(starts, ends):
            some_starts, some_ends = starts[first:last], ends[first:last]
            if self._is_split:
                pre_tokens = pretokens.split(data, some_starts, some_ends, self._normalized, edges)
            else:
                pre_tokens = pretokens.whole_sentences(data, some_starts, some_ends)
            run, counts = self._cache.ids(pre_tokens)
            runs.append(run)
            lengths.append(counts)
        ids, after = np.concatenate(runs), np.cumsum(np.concatenate(lengths))
        if continues.any():  # the pieces of a long sentence have an `<eos>` each
            ids = np.delete(ids, after[continues] - 1)
            after = (after - np.cumsum(continues))[~continues]
        return ids, after

    def offsets(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The first character of each token of some sentences: [N] int64, for `<eos>` the length of the sentence; and [S] ends.

        Tokens and ends are those of `encode_sentences`.
        """
        with tokenizer_json.named_panic():
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        offsets = [
            np.array([*(start for start, _ in encoding.offsets), len(text)], np.int64)
            for encoding, text in zip(encodings, texts, strict=True)
        ]
        return np.concatenate([np.empty(0, np.int64), *offsets]), np.cumsum([*map(len, offsets)], dtype=np.int64)

    @cached_property
    def opens_word(self) -> np.ndarray | None:
        """[V] bool: whether a token begins a new word: tokens that begin with whitespace, and `<eos>`.

        None if tokens do not contain whitespace, so that they cannot tell.
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
        return self._without_eos(encode(self._tokenizer, [text])[0])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. `<eos>` is dropped at both ends and becomes a line feed between two sentences."""
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
        """The text of one token, for display; bytes that are not a whole character are written `\\x..`."""
        spelled = self._tokenizer.id_to_token(int(id))
        if spelled is None:
            raise PacklmError(f"the tokenizer has no token {id}; its ids go from 0 to {self.vocab_size - 1}")
        if id == self.eos or not self.lossless:
            return spelled
        return bytes(_BYTES[character] for character in spelled).decode(errors="backslashreplace")

    @property
    def vocabulary(self) -> list[str]:
        """[V] the tokens as `tokenizer.json` spells them."""
        spelled = {id: token for token, id in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        return [spelled.get(id, f"<{id}>") for id in range(self.vocab_size)]

    @cached_property
    def spellings(self) -> list[bytes]:
        """[V] what each token appends to the text before it, in UTF-8; a line feed for `<eos>`."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        spellings = [b""] * self.vocab_size
        anchor = min((id for id in vocabulary.values() if id not in (self.eos, self.unk)), default=self.eos)
        prefix = self._tokenizer.decode([anchor], skip_special_tokens=False)
        for spelled, id in vocabulary.items():
            if self.lossless:
                spellings[id] = bytes(_BYTES[character] for character in spelled if character in _BYTES)
            else:
                spellings[id] = self._tokenizer.decode([anchor, id], skip_special_tokens=False).removeprefix(prefix).encode()
        spellings[self.eos] = b"\n"
        return spellings

    @cached_property
    def _is_split(self) -> bool:
        """Whether sentences are encoded by pre-tokens rather than whole; the log says why if not."""
        reason = pretokens.unsafe_reason(self._tokenizer)
        if reason is not None:
            log.info("the tokenizer needs whole sentences, which is slower than word by word: %s", reason)
        return reason is None

    @cached_property
    def _normalized(self) -> bool:
        return self._tokenizer.normalizer is not None

    @cached_property
    def _cache(self) -> EncodingCache:
        return EncodingCache(self._tokenizer, self.eos, self._without_eos, self.id_type, self._is_split)

    def _without_eos(self, ids: np.ndarray) -> np.ndarray:
        """Replaces the id of `<eos>`, which some tokenizers give to text that spells it, by that of the unknown word."""
        if self.unk is not None:
            ids[ids == self.eos] = self.unk
        elif (ids == self.eos).any():
            raise PacklmError(f"text that spells {EOS} encodes to the end of a sentence, and the tokenizer has no unknown word instead")
        return ids


def _bytes_of_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for: printable Latin-1 for itself, U+0100 onwards for the rest."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _bytes_of_characters()
