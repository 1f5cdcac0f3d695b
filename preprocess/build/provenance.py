"""What a dataset is made from: all settings that its content depends on, and its sources by content."""

from dataclasses import dataclass
from typing import Any

from packlm.base.completion import differences
from packlm.config import Config
from packlm.text import tokenizers
from packlm.text.tokenizers import pretrained

NOT_CONTENT = {
    "corpus": {"train", "validation", "test"},  # sources count by the digests of their bytes
    "tokenizer": {"file", "eos"},  # a pretrained tokenizer counts by its digest
    "dataset": {"dir", "executor", "workers", "slurm"},
}
"""The settings that do not change a dataset's content; besides these, only settings that the kind of tokenizer does not use."""
_MAX_LISTED = 10


@dataclass(frozen=True)
class Provenance:
    """Settings, and the SHA-256 of each source by its name; contains no paths of this machine."""

    settings: dict[str, Any]
    corpus: dict[str, str]


def content_settings(config: Config, pretrained_json: str | None) -> dict[str, Any]:
    """The settings that a dataset's content depends on, by section; `pretrained_json`: the pretrained tokenizer, if there is one."""
    unused = set(type(config.tokenizer).model_fields) - {"kind", *tokenizers.KINDS[config.tokenizer.kind].settings}
    excluded = NOT_CONTENT | {"tokenizer": NOT_CONTENT["tokenizer"] | unused}
    chosen = config.model_copy(update={"tokenizer": tokenizers.KINDS[config.tokenizer.kind].resolve(config.tokenizer)})
    settings = {section: getattr(chosen, section).model_dump(mode="json", exclude=names) for section, names in excluded.items()}
    settings["tokenizer"]["file"] = pretrained.identity(pretrained_json)
    return settings


def changes(old: Provenance, new: Provenance) -> list[str]:
    """A line for each setting and source that differs."""
    lines = differences(old.settings, new.settings)
    for change, names in (
        ("added", [name for name in new.corpus if name not in old.corpus]),
        ("changed", [name for name in new.corpus if name in old.corpus and old.corpus[name] != new.corpus[name]]),
        ("removed", [name for name in old.corpus if name not in new.corpus]),
    ):
        lines += [f"{change}: {name}" for name in names[:_MAX_LISTED]]
        lines += [f"{change}: {len(names) - _MAX_LISTED:,} more"] if len(names) > _MAX_LISTED else []
    if not lines and list(old.corpus) != list(new.corpus):
        lines.append("the sources come in another order")
    return lines
