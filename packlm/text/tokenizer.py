"""Tokenizers: made from counts (word, character) or trained on a sample (byte-level BPE), saved, and loaded again.

Special ids are `<eos>` (0) and, except for BPE, which knows every byte, `<unk>` (1). The same text gives the same file, byte for byte.
Case and normal form are the tokenizer's own normalizer, so that whatever is encoded later goes through the same.
"""

import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from packlm import config
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.dataset import EOS, UNK

log = logging.getLogger("packlm")

NAME = "tokenizer.json"
SPACES = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""White space as the pre-tokenizers have it (Unicode's White_Space), for a regular expression; `str.split` cuts at four controls more."""

_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_MINIMUM = {
    "word": (3, "two special tokens and a word"),
    "character": (3, "two special tokens and a character"),
    "bpe": (257, f"{EOS} and 256 bytes"),
}
_NORMAL_FORMS = {"nfc": normalizers.NFC, "nfd": normalizers.NFD, "nfkc": normalizers.NFKC, "nfkd": normalizers.NFKD}
# The kinds for which a setting means something. What would change the tokenizer and cannot is refused; the rest is only said.
_MEANT_FOR = {
    "min_count": ("word", "character"),
    "words": ("word",),
    "lowercase": ("word", "character", "bpe"),
    "normal_form": ("word", "character", "bpe"),
    "eos": ("file",),
}
_SAID = {"vocab_size": ("word", "character", "bpe"), "sample_bytes": ("bpe",)}

_CHUNK = re.compile(f"[{SPACES}]*[^{SPACES}]+|[{SPACES}]+")
_SPACED = re.compile(f"[{SPACES}]+[^{SPACES}]")
MOST_CHUNKS = 1 << 18  # distinct chunks that the trainer of BPE is given
_MOST_BYTES = 1 << 22  # and their bytes
_FEED = 1 << 16  # bytes of a repeated chunk handed over at a time


def check(settings: config.Tokenizer) -> None:
    """Says what is wrong with the settings of a tokenizer, without looking at any file.

    Raises:
        RequestError: a vocabulary that cannot hold what it must, or settings that mean nothing to this kind of tokenizer.
    """
    defaults = config.Tokenizer()
    for listed in (_MEANT_FOR, _SAID):
        idle = [name for name, kinds in listed.items() if settings.kind not in kinds and getattr(settings, name) != getattr(defaults, name)]
        for name in idle:
            line = f"tokenizer.{name} = {getattr(settings, name)!r} does nothing with kind = {settings.kind!r}"
            if listed is _MEANT_FOR:
                raise RequestError(f"{line}, only with {' or '.join(map(repr, listed[name]))}; take it out, or change tokenizer.kind")
            log.warning("%s", line)
    if settings.kind in _MINIMUM:
        minimum, why = _MINIMUM[settings.kind]
        if settings.vocab_size < minimum:
            found = f"{settings.vocab_size} is too small; {settings.kind!r} needs at least {minimum} ({why})"
            raise RequestError(f"tokenizer.vocab_size: {found}")


def normalizer(settings: config.Tokenizer) -> normalizers.Normalizer | None:
    """What text goes through first: the normal form, then lower case; None where it stays as it is."""
    steps = [_NORMAL_FORMS[settings.normal_form]()] if settings.normal_form != "none" else []
    if settings.lowercase:
        steps.append(normalizers.Lowercase())
    if len(steps) < 2:
        return steps[0] if steps else None
    return normalizers.Sequence(steps)


def pre_tokenizer(settings: config.Tokenizer) -> pre_tokenizers.PreTokenizer:
    """What cuts normalized text into words, characters, or the pieces within which BPE merges."""
    if settings.kind == "bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if settings.kind == "character":
        return pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return pre_tokenizers.WhitespaceSplit() if settings.words == "space" else pre_tokenizers.Whitespace()


def from_counts(settings: config.Tokenizer, entries: Sequence[tuple[str, int]]) -> Tokenizer:
    """A word or character tokenizer of the special tokens and as many entries, (text, count), as there is room for.

    `entries` come most frequent first and without the special tokens; those with fewer than `settings.min_count` are left out.
    """
    kept = [entry for entry, count in entries if count >= settings.min_count]
    # A vocabulary of our own, not WordLevelTrainer's: that gives a spelled <unk>, as in Penn Treebank, a second entry.
    vocabulary = {entry: index for index, entry in enumerate([EOS, UNK, *kept][: settings.vocab_size])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    if settings.kind == "character":
        tokenizer.decoder = decoders.Fuse()
    _prepare(tokenizer, settings)
    tokenizer.add_special_tokens([EOS, UNK])
    return tokenizer


def bpe_from_counts(settings: config.Tokenizer, chunks: Sequence[tuple[str, int]], total: int) -> Tokenizer:
    """Trains byte-level BPE on chunks of sentences, each as often as it occurs.

    The trainer needs some two kilobytes for every distinct chunk and seventy bytes for every byte of them, so it is given no more than
    `MOST_CHUNKS` of four megabytes together: below a gigabyte, then. The log says which share of the text that is, where it is not all.

    Args:
        chunks: (text, how often it occurs), most frequent first; see `vocabulary.Counter`.
        total: how often all chunks occur that there are, given or not.
    """
    sizes = np.cumsum([len(chunk.encode()) for chunk, _ in chunks[:MOST_CHUNKS]])
    fed = chunks[: int(np.searchsorted(sizes, _MOST_BYTES, side="right"))]
    given = sum(count for _, count in fed)
    if given < total:
        log.info("bpe learns from the %s most frequent words, %.1f%% of the text", f"{len(fed):,}", 100 * given / total)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    _prepare(tokenizer, settings)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size, min_frequency=2, special_tokens=[EOS], initial_alphabet=_ALPHABET, show_progress=False
    )
    tokenizer.train_from_iterator(_repeated(fed), trainer)
    return tokenizer


def train(settings: config.Tokenizer, sentences: Iterable[str]) -> Tokenizer:
    """Trains a tokenizer on sentences that are few: counts in memory. `preprocess` itself counts with `vocabulary`."""
    counts: Counter[str] = Counter()
    change, cut = normalizer(settings), pre_tokenizer(settings)
    for sentence in sentences:
        if settings.kind == "bpe":
            counts.update(_CHUNK.findall(sentence))
        else:
            counts.update(word for word, _ in cut.pre_tokenize_str(change.normalize_str(sentence) if change else sentence))
    if settings.kind != "bpe":
        del counts[EOS], counts[UNK]
    entries = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return bpe_from_counts(settings, entries, counts.total()) if settings.kind == "bpe" else from_counts(settings, entries)


def in_sample(names: Sequence[str] | pa.StringArray, share: float) -> np.ndarray:
    """[D] bool: which documents belong to a sample of about that share of all, by a hash of their names; at 1 and above, all.

    Whether a document does depends on nothing but its name, and a larger share only adds documents.
    """
    if share >= 1:
        return np.ones(len(names), bool)
    return _hashes(pa.array(names, pa.string())) < np.uint64(share * 2**64)


def _prepare(tokenizer: Tokenizer, settings: config.Tokenizer) -> None:
    if change := normalizer(settings):
        tokenizer.normalizer = change
    tokenizer.pre_tokenizer = pre_tokenizer(settings)


def _repeated(chunks: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Text in which each chunk occurs as often as its count says, and is cut off from the next as it was in its sentence."""
    for chunk, count in chunks:
        # Between a word and the white space before the next one there is always a cut; elsewhere two in a row might run together.
        at_once = min(count, max(1, _FEED // len(chunk))) if _SPACED.match(chunk) else 1
        yield from repeat(chunk * at_once, count // at_once)
        if rest := count % at_once:
            yield chunk * rest


def _hashes(values: pa.Array) -> np.ndarray:
    """[n] uint64, evenly spread: the CRC-32 of each string's UTF-8, mixed by the finalizer of SplitMix64 (Steele et al. 2014)."""
    mixed = np.fromiter(map(zlib.crc32, values.cast(pa.binary()).to_pylist()), np.uint64, len(values))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def save(text: str, folder: Path) -> None:
    """Writes a tokenizer's JSON, and the few lines that transformers' `PreTrainedTokenizerFast` wants beside it."""
    files.write_text(folder / NAME, text)
    beside = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": EOS, "eos_token": EOS, "clean_up_tokenization_spaces": False}
    made = Tokenizer.from_str(text)
    missing = unknown(made)
    known = missing is not None and made.token_to_id(missing) is not None
    files.write_json(folder / "tokenizer_config.json", beside | ({"unk_token": missing} if known else {}))


def load(path: Path | str) -> Tokenizer:
    """Loads a `tokenizer.json`, so that text which spells a special token stays text; no truncation, no padding.

    Raises:
        RequestError: no such file, not a tokenizer, or one without `<eos>`.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: there is no such tokenizer")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not a tokenizer.json: {error}") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Tokenizer:
    """Like `load`, from the JSON itself; errors call it `name`."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # what tokenizers raises is a bare Exception
        raise RequestError(f"{name}: not a tokenizer.json: {error}") from None
    if tokenizer.token_to_id(EOS) is None:
        raise RequestError(f"{name}: no {EOS} in its vocabulary; add it with `Tokenizer.add_special_tokens([{EOS!r}])` and save it again")
    tokenizer.encode_special_tokens = True  # not saved in the file
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def unknown(tokenizer: Tokenizer) -> str | None:
    """The token for what is not in the vocabulary; None where there is none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return tokenizer.id_to_token(model["unk_id"])
    return model.get("unk_token")


def lossless(tokenizer: Tokenizer) -> bool:
    """Whether decoding gives back any text to the letter: byte-level BPE with all 256 bytes and nothing that alters the text."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    before = parts["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    return (
        parts["model"]["type"] == "BPE"
        and parts["normalizer"] is None
        and any(step["type"] == "ByteLevel" for step in steps if step)
        and all(_keeps_everything(step) for step in steps)
        and (parts["decoder"] or {}).get("type") == "ByteLevel"
        and all(token["special"] for token in parts["added_tokens"])
        and all(byte in parts["model"]["vocab"] for byte in _ALPHABET)
    )


def _keeps_everything(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return not step["add_prefix_space"]
    return step.get("type") == "Digits" or (step.get("type") == "Split" and step["behavior"] != "Removed")
