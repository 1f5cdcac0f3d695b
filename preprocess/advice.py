"""What a user should know of a dataset that was just made, each with its remedy: a held-out split without text, with too many unknown
words, or with text that training has, too.
"""

from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text.tokenizers import KINDS

from . import overlap

MAX_UNKNOWN = 0.05
"""Share of unknown tokens in a held-out split above which perplexity says little about the text."""
MAX_OVERLAP = 0.05
"""Share of a held-out split that training may have, too, in whole sentences or in runs of some words."""
_HELD_OUT = ("validation", "test")


def advice(config: Config, manifest: Manifest) -> list[str]:
    """One line for each thing."""
    overlaps = overlap.load(config.dataset.dir)
    lines = [line for split in _HELD_OUT for line in (_empty(config, manifest, split), _unknown(config, manifest, split)) if line]
    return lines + [line for split in overlaps if (line := _overlap(split, overlaps[split], manifest))]


def _empty(config: Config, manifest: Manifest, split: str) -> str | None:
    """A split that was asked for, and has no text."""
    locations, fraction = getattr(config.corpus, split), getattr(config.corpus, f"{split}_fraction")
    if split in manifest.splits or not (locations or fraction):
        return None
    if locations:
        return f"the {split} split is empty: there is nothing but whitespace in what corpus.{split} names; name other files"
    number = sum(content.documents for content in manifest.splits.values())
    problem = f"corpus.{split}_fraction = {fraction:g} of {number:,} {'document' if number == 1 else 'documents'} selected none"
    remedy = f"raise it, name files with --corpus.{split}, or make smaller documents with --corpus.document paragraph or line"
    return f"the {split} split is empty: {problem}; {remedy}"


def _unknown(config: Config, manifest: Manifest, split: str) -> str | None:
    """A held-out split with a large share of `<unk>`."""
    content = manifest.splits.get(split)
    if content is None or content.unknown <= MAX_UNKNOWN * content.tokens:
        return None
    problem = f"{content.unknown / content.tokens:.1%} of the {split} tokens are unknown to a vocabulary of {manifest.vocab_size:,}"
    if config.tokenizer.kind == "file":
        return f"{problem}; use a tokenizer of this language, or train one with --tokenizer.kind bpe"
    settings = KINDS[config.tokenizer.kind].resolve(config.tokenizer)
    remedies = ["--tokenizer.kind bpe, which knows all text"]
    if manifest.vocab_size >= (settings.vocab_size or 0):
        remedies.append("a larger --tokenizer.vocab_size")
    elif (settings.min_count or 1) > 1:
        remedies.append("--tokenizer.min_count 1")
    return f"{problem}; use {', or '.join(remedies)}"


def _overlap(split: str, shared: overlap.SplitOverlap, manifest: Manifest) -> str | None:
    """A held-out split that shares much of its text with the training split."""
    if max(shared.sentence_share, shared.run_share) <= MAX_OVERLAP:
        return None
    return (
        f"the training split also has {shared.sentences:,} of the {manifest.splits[split].sentences:,} sentences of the {split} split "
        f"({shared.sentence_share:.1%} of its tokens) and {shared.run_share:.1%} of its runs of {shared.run_tokens} tokens: perplexity "
        "there is lower than on new text; name other files, or skip duplicates (--corpus.duplicates skip) if whole documents are repeated"
    )
