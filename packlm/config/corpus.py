"""Section `corpus`: which documents are used, and how they are read, split and cleaned."""

import re
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from packlm.config.section import Location, Section

_one_or_several = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
Locations = Annotated[tuple[Location, ...], _one_or_several]


class Corpus(Section):
    format: Literal["auto", "text", "jsonl", "json", "csv", "parquet", "builtin"] = "auto"
    """File format. auto: from the file name (`.jsonl`, `.ndjson`, `.json`, `.csv`, `.tsv`, `.parquet`, optionally with `.gz` or `.zst`;
    anything else is text, and refused if it looks like JSON, HTML or a table). json: an array of records, or one or several records.
    builtin: a corpus that is generated locally; `corpus.train = "python"` is the documentation of Python and of packages that
    packlm depends on."""
    train: Locations = ()
    """Training documents: a file, a folder (searched recursively), a glob, `hub:NAME[:CONFIG[:SPLIT]]` for a Hugging Face
    dataset, `-` for standard input, or a list of these."""
    validation: Locations = ()
    """Validation documents, in the same form as `train`."""
    test: Locations = ()
    """Test documents, in the same form as `train`."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Fraction of the `train` documents held out for validation, selected by a hash of document name and `split_seed`."""
    test_fraction: float = Field(0.0, ge=0, lt=1)
    """Fraction of the `train` documents held out for testing, selected in the same way."""
    split_seed: int = Field(1, ge=0, lt=2**63)
    """Seed of the selection of held-out documents."""
    text_field: str = "text"
    """Field or column with the document's text in JSONL, JSON, CSV, Parquet and Hugging Face datasets; `data.text`: the field `text` of
    the object in `data`."""
    delimiter: str = "auto"
    """CSV: the character between fields. auto: a tab in files called `.tsv` or `.tab`; in others what the first line has most of: comma,
    semicolon, tab or bar."""
    quoting: Literal["auto", "csv", "none"] = "auto"
    """CSV: whether quotation marks enclose fields, within which delimiters and line ends are text (csv), or are text themselves (none).
    auto: none where the delimiter is a tab, otherwise csv."""
    encoding: str = "utf-8"
    """Encoding of text, JSONL, JSON and CSV files; a Python codec name (`latin-1`, `cp1252`, `utf-16`, ...). auto: for each file, UTF-8 if
    it is valid, otherwise its likely encoding; the manifest counts the files of each."""
    document: Literal["file", "line", "paragraph", "pattern"] = "file"
    """Unit of a document in text files: a file, a line, a paragraph (separated by blank lines), or everything from one line that matches
    `document_pattern` to the next."""
    document_pattern: str = ""
    """With `document = "pattern"`: regular expression of the first line of a document, matched against the whole line without surrounding
    whitespace; with `\\n` at its beginning or end, only where the line before or after is blank. Text before the first match is a document,
    too. WikiText articles: `\\n= [^=].* =\\n`."""
    sentences: Literal["line", "sentencex", "none"] = "sentencex"
    """Sentence splitting: by line, by the library sentencex, or none (a document is one sentence)."""
    language: str = "en"
    """Language code of the text, for sentencex."""
    max_tokens: int | None = Field(None, ge=8, le=10**9)
    """Maximum length of a sentence in tokens, `<eos>` included. Default: unlimited."""
    on_overlong: Literal["split", "keep", "error"] = "split"
    """Sentences longer than `max_tokens`: split at whitespace into rows marked as joined, keep, or stop with an error. Counted in the
    manifest."""
    drop_lines: Annotated[tuple[str, ...], _one_or_several] = ()
    """Regular expressions of lines to drop, matched against the whole line without surrounding whitespace. Counted in the manifest."""
    on_bad_text: Literal["error", "replace", "skip"] = "error"
    """Bytes that are invalid in `encoding`, malformed records, and a literal `<eos>` at word level: stop with file and position; replace
    by U+FFFD (a literal `<eos>` by `<unk>`; a malformed record is skipped); or skip the document. Counted in the manifest."""
    on_control: Literal["error", "keep", "remove", "skip"] = "error"
    """Control characters (U+0000-U+0008, U+000E-U+001F, U+007F): stop with file and position, keep, remove, or skip the document. Removed
    characters and skipped documents are counted in the manifest."""
    line_ends: Literal["keep", "lf"] = "keep"
    """Line endings: keep, or convert CR LF to LF. Counted in the manifest."""
    on_empty: Literal["skip", "error"] = "skip"
    """Documents that contain only whitespace: skip (counted in the manifest), or stop at the first."""
    duplicates: Literal["keep", "skip"] = "keep"
    """Documents with identical text: keep all, or skip all but one (counted in the manifest). The held-out copy is kept if there is one,
    else the first."""
    max_document_bytes: int = Field(1 << 28, ge=1, le=1 << 40)
    """Maximum size of a document in bytes; a larger one is an error, since processing takes a multiple of its size in memory."""

    def split_of(self, name: str) -> str:
        """The split of a document listed in `train`, by a hash of its name: other documents do not influence it."""
        uniform = int.from_bytes(sha256(f"{self.split_seed}\n{name}".encode()).digest()[:8]) / 2**64
        if uniform < self.validation_fraction:
            return "validation"
        return "test" if uniform >= 1 - self.test_fraction else "train"

    @field_validator("drop_lines")
    @classmethod
    def _check_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_regular_expression(pattern) for pattern in patterns)

    @field_validator("document_pattern")
    @classmethod
    def _check_pattern(cls, pattern: str) -> str:
        return _regular_expression(pattern)

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, delimiter: str) -> str:
        delimiter = delimiter.replace("\\t", "\t")
        if delimiter != "auto" and (len(delimiter) != 1 or delimiter in '\r\n" ' or not delimiter.isascii()):
            raise ValueError(
                'not auto, or one ASCII character other than a space, a quotation mark and a line end (a tab may be written "\\t")'
            )
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, name: str) -> str:
        if name == "auto":
            return name
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("not a codec that Python knows") from None
        return name

    @model_validator(mode="after")
    def _check_combinations(self) -> "Corpus":
        if self.validation and self.validation_fraction:
            raise ValueError("give either validation files (validation) or a validation_fraction, not both")
        if self.test and self.test_fraction:
            raise ValueError("give either test files (test) or a test_fraction, not both")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction must sum to less than 1")
        if (self.document == "pattern") != bool(self.document_pattern):
            raise ValueError('document = "pattern" and document_pattern = "..." go together')
        return self


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    except RecursionError:
        raise ValueError("not a regular expression: nested too deeply") from None
    return pattern
