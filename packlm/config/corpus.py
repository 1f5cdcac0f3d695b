"""Settings of the section `corpus`: which documents there are, and how they are read and cleaned."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from packlm.config.section import Section

Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class Corpus(Section):
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "builtin"] = "auto"
    """What the files are. auto: by their names (`.jsonl`, `.csv`, `.tsv`, `.parquet`, each of which may end in `.gz` or `.zst`;
    anything else is text). builtin: documents made on the spot; `corpus.train = "python"`, Python's own documentation."""
    train: Paths = ()
    """Training documents: a file, a folder (searched recursively), a glob, `hub:NAME[:CONFIG[:SPLIT]]` for a Hugging Face
    dataset, `-` for standard input, or a list of these."""
    validation: Paths = ()
    """Validation documents, given the same way."""
    test: Paths = ()
    """Test documents, given the same way."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the `train` documents set aside for validation, chosen by a hash of document and `split_seed`."""
    test_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the `train` documents set aside for testing, chosen the same way."""
    split_seed: int = Field(1, ge=0)
    """Another seed, another choice of documents for the fractions."""
    text_field: str = "text"
    """The field that holds a document's text, in JSONL, CSV, Parquet and Hugging Face datasets."""
    encoding: str = "utf-8"
    """Encoding of text, JSONL and CSV files, by its name in Python (`latin-1`, `cp1252`, `utf-16`, ...)."""
    document: Literal["file", "line", "paragraph", "pattern"] = "file"
    """In text files, what a document is: a file, a line, what lies between blank lines, or what begins at a line that
    `document_pattern` matches."""
    document_pattern: str = ""
    """Regular expression, with `document = "pattern"`: a document begins at each line it matches in whole (the white space around it
    aside); what precedes the first is one too. WikiText's articles: `= [^=].* =`."""
    sentences: Literal["line", "sentencex", "none"] = "sentencex"
    """Where sentences end: at line ends, where the sentencex library says, or nowhere (a document is one sentence)."""
    language: str = "en"
    """Language of the text, for sentencex."""
    max_tokens: int | None = Field(None, ge=8)
    """Tokens from which on a sentence is overlong, `<eos>` included; no sentence is unless given."""
    on_overlong: Literal["split", "keep", "error"] = "split"
    """What to do with an overlong sentence: split it at white space into pieces marked as joined, keep it, or stop; all counted."""
    drop_lines: Paths = ()
    """Regular expressions; a line that one of them matches in whole (the white space around it aside) is dropped, and counted."""
    on_bad_text: Literal["error", "replace", "skip"] = "error"
    """What to do with bytes that are not in `encoding`, records that cannot be read (and a spelled `<eos>` at word level): stop and
    name the place, replace them by U+FFFD (by `<unk>`; a record cannot be replaced and is skipped), or skip the document; counted."""
    on_control: Literal["error", "keep", "remove", "skip"] = "error"
    """What to do with NUL and other control characters (U+0000-U+0008, U+000E-U+001F, U+007F): stop and name the place, keep them,
    remove them, or skip the document; the last two are counted."""
    line_ends: Literal["keep", "lf"] = "keep"
    """Keep CR LF line ends as they are, or turn each into LF, counted."""
    on_empty: Literal["skip", "error"] = "skip"
    """What to do with documents of nothing but white space: skip them, counted, or stop and name the first."""
    duplicates: Literal["keep", "skip"] = "keep"
    """Keep documents whose text occurs twice, or skip all but one of them, counted; what is in test or validation leaves the training
    split, otherwise the first stays."""
    max_document_bytes: int = Field(1 << 28, ge=1)
    """A document longer than this stops the work: it would have to fit in memory several times over."""

    @field_validator("drop_lines")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_regular(pattern) for pattern in patterns)

    @field_validator("document_pattern")
    @classmethod
    def _compile_one(cls, pattern: str) -> str:
        return _regular(pattern)

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("no encoding that Python knows") from None
        return name

    @model_validator(mode="after")
    def _splits(self) -> "Corpus":
        if self.validation and self.validation_fraction:
            raise ValueError("give either validation files (validation) or a validation_fraction, not both")
        if self.test and self.test_fraction:
            raise ValueError("give either test files (test) or a test_fraction, not both")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        if (self.document == "pattern") != bool(self.document_pattern):
            raise ValueError('document = "pattern" and document_pattern = "..." go together')
        return self


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern
