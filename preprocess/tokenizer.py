"""Tokenizers: trained on the training split (word, character, byte-level BPE), saved, and loaded again.

Special ids are `<eos>` (0) and, except for BPE, which knows every byte, `<unk>` (1). The same sentences give the same file,
byte for byte.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline import config, files
from pipeline.dataset import EOS, UNK
from pipeline.errors import RequestError

NAME = "tokenizer.json"
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_MINIMUM = {
    "word": (3, "two special tokens and a word"),
    "character": (3, "two special tokens and a character"),
    "bpe": (257, f"{EOS} and 256 bytes"),
}
# White space as `WhitespaceSplit` has it (Unicode's White_Space); `str.split` would cut at four control characters more.
_WORDS = re.compile(r"[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")


def check(settings: config.Tokenizer) -> None:
    """Raises `RequestError` where the vocabulary cannot hold what it must, or the given file is no tokenizer of ours."""
    if settings.file is not None:
        load(settings.file)
        return
    minimum, why = _MINIMUM[settings.kind]
    if settings.vocab_size < minimum:
        raise RequestError(f"tokenizer.vocab_size: {settings.vocab_size} is too small; {settings.kind!r} needs at least {minimum} ({why})")


def train(settings: config.Tokenizer, sentences: Iterable[str]) -> Tokenizer:
    """Trains a tokenizer of `settings.kind` with at most `settings.vocab_size` entries."""
    if settings.kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=settings.vocab_size, min_frequency=2, special_tokens=[EOS], initial_alphabet=_ALPHABET, show_progress=False
        )
        tokenizer.train_from_iterator(sentences, trainer)
        return tokenizer
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(_WORDS.findall(sentence) if settings.kind == "word" else sentence)
    # Counted here, not by WordLevelTrainer: that gives a spelled <unk>, as in Penn Treebank, a second entry of its own.
    del counts[EOS], counts[UNK]
    entries = [EOS, UNK, *sorted(counts, key=lambda entry: (-counts[entry], entry))][: settings.vocab_size]
    tokenizer = Tokenizer(models.WordLevel({entry: index for index, entry in enumerate(entries)}, unk_token=UNK))
    if settings.kind == "word":
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([EOS, UNK])
    return tokenizer


def save(text: str, folder: Path) -> None:
    """Writes a tokenizer's JSON, and the few lines that transformers' `PreTrainedTokenizerFast` wants beside it."""
    files.write_text(folder / NAME, text)
    beside = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": EOS, "eos_token": EOS, "clean_up_tokenization_spaces": False}
    files.write_json(folder / "tokenizer_config.json", beside | ({"unk_token": UNK} if unknown(Tokenizer.from_str(text)) == UNK else {}))


def load(path: Path) -> Tokenizer:
    """Loads a `tokenizer.json`, so that text which spells a special token stays text; no truncation, no padding.

    Raises:
        RequestError: no such file, not a tokenizer, or one without `<eos>`.
    """
    path = Path(path)
    if not path.is_file():
        raise RequestError(f"{path}: there is no such tokenizer")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # what tokenizers raises is a bare Exception
        raise RequestError(f"{path}: not a tokenizer.json: {error}") from None
    if tokenizer.token_to_id(EOS) is None:
        raise RequestError(f"{path}: no {EOS} in its vocabulary; add it with `Tokenizer.add_special_tokens([{EOS!r}])` and save it again")
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
