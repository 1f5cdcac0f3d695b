"""What a dataset was made from: the settings its content depends on, and its sources, by content."""

from dataclasses import dataclass
from typing import Any

from packlm.base.changes import differences
from packlm.config import Config
from packlm.dataset import SPLITS
from packlm.text.tokenizers import pretrained

_LISTED = 10
_USED = {
    "word": {"kind", "vocab_size", "min_count", "words", "lowercase", "normal_form"},
    "character": {"kind", "vocab_size", "min_count", "lowercase", "normal_form"},
    "bpe": {"kind", "vocab_size", "sample_bytes", "lowercase", "normal_form"},
    "file": {"kind"},
}
"""The tokenizer settings that count, by its kind."""


@dataclass(frozen=True)
class Provenance:
    """Settings, and the SHA-256 of each source under its name; no paths of this machine."""

    settings: dict[str, Any]
    corpus: dict[str, str]


def settings_of(config: Config, ready: str | None) -> dict[str, Any]:
    """The settings that count; `ready`: the text of a tokenizer that is not trained (see `given.load_given`)."""
    tokenizer = config.tokenizer.model_dump(mode="json", include=_USED[config.tokenizer.kind])
    return {
        "corpus": config.corpus.model_dump(mode="json", exclude=set(SPLITS)),
        "tokenizer": {**tokenizer, "file": pretrained.identity(ready)},
        "dataset": config.dataset.model_dump(mode="json", exclude={"dir", "executor", "workers", "slurm"}),
    }


def difference(old: Provenance, new: Provenance) -> list[str]:
    """A line for each setting and source that differs."""
    changes = differences(old.settings, new.settings)
    for what, names in (
        ("added", [name for name in new.corpus if name not in old.corpus]),
        ("changed", [name for name in new.corpus if name in old.corpus and old.corpus[name] != new.corpus[name]]),
        ("removed", [name for name in old.corpus if name not in new.corpus]),
    ):
        changes += [f"{what}: {name}" for name in names[:_LISTED]]
        changes += [f"{what}: {len(names) - _LISTED:,} more"] if len(names) > _LISTED else []
    if not changes and list(old.corpus) != list(new.corpus):
        changes.append("the sources come in another order")
    return changes
