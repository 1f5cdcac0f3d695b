"""Writes a recipe: a TOML file with the settings for a corpus, and why each has its value."""

from pathlib import Path
from typing import Any

from packlm.base.escape import one_line
from packlm.config import Corpus, recipes
from packlm.config.reading import toml_value
from packlm.text.tokenizers.bpe import default_vocab_size

from .findings import Findings
from .sizes import WINDOW, Size, by_size

_STREAM_SENTENCES = 2.5
"""From so many sentences a document on, the state is carried from one to the next."""
_MAX_VOCAB_SIZE = 10_000
"""Beyond, the softmax takes most of the time, and what it adds are rare words."""
_FEW_TOKENS = 20_000
_LISTED = 5
"""Odd files that are named."""
_MUCH_OVERLAP = 0.1
Settings = list[tuple[str, Any, str]]
"""(key, value, comment) of a section; a value of None: the setting stands there as a comment, to be filled in."""


def size_of(findings: Findings) -> Size:
    """The settings for the size of the corpus."""
    return by_size(findings.train_bytes, min(default_vocab_size(findings.train_bytes), _MAX_VOCAB_SIZE))


def recipe(folder: str, findings: Findings) -> str:
    """The recipe as TOML."""
    name, size = recipes.name_of(Path(folder)), size_of(findings)
    sections: dict[str, Settings] = {
        "run": [("name", name, "")],
        "corpus": _corpus(findings),
        "tokenizer": _tokenizer(findings, size),
        "model": _model(size),
        "train": _train(findings, size),
        "evaluate": [("split", _evaluated(findings), "beside 5-grams of the same tokens and contexts")],
        "generate": _generate(findings),
    }
    header = f"# {one_line(folder)}: written by `packlm new` from what it found there."
    lines = [header, "#", *(f"# {line}" for line in summary(findings))]
    lines += ["#", "# `packlm config --explain` describes every setting.", ""]
    for section, settings in sections.items():
        lines.append(f"[{section}]")
        for key, value, comment in settings:
            setting = f"{key} = {toml_value(list(value) if isinstance(value, tuple) else value)}" if value is not None else f"# {key} ="
            lines.append(f"{setting:<30} # {comment}" if comment else setting)
        lines.append("")
    return "\n".join(lines)


def summary(findings: Findings) -> list[str]:
    """What was found, in lines for people."""
    files, shared, lengths = findings.files, findings.overlap, findings.sentence_words
    size = size_of(findings)
    endings = ", ".join(f"{count:,} {ending or 'without ending'}" for ending, count in files.endings.most_common(4))
    part = f" (the other numbers are of {findings.sample:.1%} of it)" if findings.sample < 1 else ""
    encodings = ", ".join(f"{count:,} {name}" for name, count in findings.encodings.most_common())
    middle, long = lengths[len(lengths) // 2], lengths[len(lengths) * 95 // 100]
    lines = [
        f"files: {endings}; {findings.file_bytes / 1e6:,.1f} MB{part}; encoding: {encodings}",
        f"documents: {findings.documents:,} ({findings.structure.reason}), {findings.words:,} words; about "
        f"{size.train_tokens:,} tokens for training",
        f"sentences: half have at most {middle} words, 95 % at most {long}; {findings.sentences_per_document:,.0f} in a document",
        f"language: {findings.language or 'not recognized, set corpus.language'}",
    ]
    for path, reason in list(files.odd.items())[:_LISTED]:
        outcome = "is read too; move it out of the folder if it is no text of the corpus" if path in files.still_read else "left out"
        lines.append(f"odd: {one_line(path)}: {reason}; {outcome}")
    if len(files.odd) > _LISTED:
        lines.append(f"odd: {len(files.odd) - _LISTED:,} more files")
    if repeated := set(findings.corpus.drop_lines) - set(findings.structure.separators):
        lines.append(f"repeated lines: {len(repeated)} that half of the documents have; they are dropped (corpus.drop_lines)")
    if findings.corpus.duplicates == "skip":
        lines.append(f"duplicates: {shared.duplicates:,} documents have the text of another one; one of each is kept (corpus.duplicates)")
    if shared.held_out_runs >= _MUCH_OVERLAP:
        lines.append(
            f"overlap: {shared.held_out_runs:.0%} of the runs of eight words in held-out documents occur in training documents too; "
            "perplexity will look better than it is for new text"
        )
    if size.train_tokens < _FEW_TOKENS:
        lines.append("size: too little text for a model of its own; add some, or fine-tune a model of similar text (train.init)")
    if not findings.held_out:
        lines.append("held out: nothing, for there are too few documents; give corpus.validation files of their own")
    return lines


def _corpus(findings: Findings) -> Settings:
    rules, defaults = findings.corpus, Corpus()
    settings: Settings = []
    for split, locations in findings.files.locations.items():
        settings.append((split, locations if len(locations) > 1 else locations[0], ""))
    for split in ("validation", "test"):
        if split not in findings.files.locations:
            share = getattr(rules, f"{split}_fraction")
            settings.append((f"{split}_fraction", share, "chosen by a hash of the documents' names" if share else "too few documents"))
    comments = {
        "split_seed": "with this one the held-out documents have their share of the text",
        "text_field": "the field of a record with most text",
        "encoding": "some files are not UTF-8: each is read in its likely encoding",
        "document": findings.structure.reason,
        "document_pattern": "",
        "sentences": "a sentence a line" if rules.sentences == "line" else "a document is one sentence",
        "language": "for sentencex",
        "drop_lines": "lines between documents, or in most of them",
        "on_bad_text": "some bytes are no text: they are replaced and counted",
        "on_control": "there are control characters: they are removed and counted",
        "duplicates": "some documents have the same text",
    }
    for key, comment in comments.items():
        if getattr(rules, key) != getattr(defaults, key):
            settings.append((key, getattr(rules, key), comment))
    if not findings.language and rules.sentences == "sentencex":
        settings.append(("language", None, 'the code of the language, for sentencex ("fr", "fi", ...): it was not recognized'))
    return settings


def _evaluated(findings: Findings) -> str:
    """The test split if there is one, since the training has chosen among its weights by the other."""
    rules = findings.corpus
    if rules.test or rules.test_fraction:
        return "test"
    return "validation" if rules.validation or rules.validation_fraction else "train"


def _tokenizer(findings: Findings, size: Size) -> Settings:
    if findings.is_tokenized:
        return [("kind", "word", "the text is tokenized, with <unk> for rare words")]
    return [
        ("kind", "bpe", "byte-level: no word is unknown"),
        ("vocab_size", size.vocab_size, "by the size of the corpus: larger ones hold tokens that are too rare to learn"),
    ]


def _model(size: Size) -> Settings:
    return [
        ("cell", "lstm", ""),
        ("layers", size.layers, ""),
        ("hidden", size.hidden, "by the size of the corpus"),
        *([("residual", "add", "x + layer(x): two layers learn faster")] if size.layers > 1 else []),
        ("dropout", size.dropout, "the smaller the corpus, the more"),
    ]


def _train(findings: Findings, size: Size) -> Settings:
    if findings.sentences_per_document >= _STREAM_SENTENCES:
        batches: Settings = [
            ("segments", "streams", "the state is carried through a document, and reset at the next"),
            ("reset", "document", ""),
            ("streams", size.streams, ""),
            ("window", WINDOW, ""),
        ]
    else:
        batches = [("segments", "sentences", "documents are a sentence or two"), ("global_batch_tokens", 40 * size.streams, "")]
    return [
        *batches,
        ("optimizer", "muon", ""),
        ("lr", 1e-2, ""),
        ("weight_decay", 0.1, ""),
        ("ar", 2.0, "activation regularization, as in AWD-LSTM"),
        ("tar", 1.0, ""),
        ("schedule", "cosine", ""),
        ("epochs", size.epochs, f"about {_minutes(size)} on two cores"),
        (
            "precision",
            size.precision,
            "this processor multiplies bfloat16" if size.precision == "bf16" else "no bfloat16 on this processor",
        ),
    ]


def _generate(findings: Findings) -> Settings:
    return [
        ("prompts", findings.prompts, "from held-out documents" if findings.held_out else "beginnings of sentences"),
        ("temperature", 0.7, "below 1: fewer slips, less variety"),
        ("top_p", 0.9, ""),
        ("stop_at_eos", False, "more than the first sentence"),
        ("max_tokens", 60, ""),
    ]


def _minutes(size: Size) -> str:
    return f"{max(1, round(size.minutes)):,} min" if size.minutes < 120 else f"{size.minutes / 60:,.0f} h"
