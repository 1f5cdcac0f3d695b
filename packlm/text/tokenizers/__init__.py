"""Kinds of tokenizers, by the names of `tokenizer.kind`: one file and one object for each.

A new kind is a file here, with a subclass of `TokenizerKind` that it lists in its `KINDS`, and its name in `packlm/config/dataset.py`.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from tokenizers import Tokenizer

from packlm import config
from packlm.base.errors import RequestError
from packlm.dataset import EOS, UNK
from packlm.text.tokenizer_kind import TokenizerKind
from packlm.text.tokenizers.bpe import PRE_TOKEN

log = logging.getLogger("packlm")

KINDS: dict[str, TokenizerKind] = {}
for _module in iter_modules(__path__):
    KINDS |= import_module(f"{__name__}.{_module.name}").KINDS
_HARMLESS = ("vocab_size", "sample_bytes")
"""Settings that are ignored with a warning by the kinds that do not use them; any other would have to change the tokenizer."""


def check(settings: config.Tokenizer) -> None:
    """Checks the settings of a tokenizer, without reading any file.

    Raises:
        RequestError: a vocabulary too small for its kind, or a setting that its kind does not use.
    """
    kind, defaults = KINDS[settings.kind], config.Tokenizer()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name in ("kind", "file", *kind.settings) or value == getattr(defaults, name):
            continue
        problem = f"tokenizer.{name} = {value!r} does nothing with kind = {settings.kind!r}"
        if name not in _HARMLESS:
            names = get_args(type(settings).model_fields["kind"].annotation)
            users = " or ".join(repr(user) for user in names if name in KINDS[user].settings)
            raise RequestError(f"{problem}, only with {users}; remove it, or change tokenizer.kind")
        log.warning("%s", problem)
    minimum, reason = kind.minimum
    if settings.vocab_size is not None and settings.vocab_size < minimum:
        problem = f"{settings.vocab_size} is too small; {settings.kind!r} needs at least {minimum} ({reason})"
        raise RequestError(f"tokenizer.vocab_size: {problem}")


def train(settings: config.Tokenizer, sentences: Iterable[str]) -> Tokenizer:
    """Trains a tokenizer on a few sentences, counting in memory. `preprocess` counts by tasks instead."""
    kind = KINDS[settings.kind]
    counts: Counter[str] = Counter()
    num_bytes = 0
    for sentence in sentences:
        num_bytes += len(sentence.encode())
        if settings.kind == "bpe":
            counts.update(PRE_TOKEN.findall(sentence))
        else:
            normalizer = kind.normalizer(settings)
            text = normalizer.normalize_str(sentence) if normalizer else sentence
            counts.update(entry for entry, _ in kind.pre_tokenizer(settings).pre_tokenize_str(text))
    if settings.kind != "bpe":
        del counts[EOS], counts[UNK]
    return kind.train(kind.resolve(settings, num_bytes), sorted(counts.items(), key=lambda item: (-item[1], item[0])), counts.total())
