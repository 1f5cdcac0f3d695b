"""What a document and a sentence are in some text: a file each, or what a line like `CHAPTER 3` begins, or a paragraph, or a line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

_MIN_DOCUMENTS = 10
"""With fewer, a share that is held out is nothing, or one document."""
_HEADINGS = (
    (r"\n= [^=].* =\n", False),
    (r"(?i:chapter|chapitre|kapitel|cap[ií]tulo|capitolo|hoofdstuk|глава|book|act|scene|letter|part) +[A-Z0-9].{0,60}", False),
    (r"# .+", False),
    (r"[IVXLC]+\.?", False),
    (r"[0-9]{1,3}\.?", False),
    (r"[-=*_~#]{3,}|(\* ?){3,}", True),
    (r"\.START.*", True),
)
"""Lines that often begin a document, and whether they are mere separators."""
_SEPARATOR = "%+"
"""Between the texts of a file of fortunes."""
_MIN_WORDS = 30
"""Least median of words of the documents that a heading begins."""
_MAX_LINE_WORDS = 60
"""A line with more words is no sentence."""


@dataclass(frozen=True)
class Structure:
    """Settings of `corpus`."""

    document: Literal["file", "line", "paragraph", "pattern"] = "file"
    pattern: str = ""
    sentences: Literal["line", "sentencex", "none"] = "sentencex"
    separators: tuple[str, ...] = ()
    """Patterns of lines to drop."""
    reason: str = ""


def structure(texts: Sequence[str], num_files: int) -> Structure:
    """The structure of text files.

    Args:
        texts: the text of some files.
        num_files: how many there are.
    """
    if _separated(texts):
        return Structure("pattern", _SEPARATOR, _sentences(texts), (_SEPARATOR,), "a line of % stands between two")
    if num_files >= _MIN_DOCUMENTS:
        return Structure(sentences=_sentences(texts), reason=f"{num_files:,} files, one document each")
    few = f"{num_files} file{'s' * (num_files > 1)}, too few to hold some out"
    for pattern, is_separator in _HEADINGS:
        sizes = [size for text in texts for size in _section_sizes(text, pattern)]
        if len(sizes) >= _MIN_DOCUMENTS and median(sizes) >= _MIN_WORDS and max(sizes) < sum(sizes) / 3:
            separators = (pattern,) if is_separator else ()
            return Structure("pattern", pattern, _sentences(texts), separators, f"{few}: a document begins at a line like this")
    paragraphs = [paragraph for text in texts for paragraph in re.split(r"\n[ \t]*\n", text) if paragraph.strip()]
    if len(paragraphs) >= _MIN_DOCUMENTS:
        return Structure("paragraph", sentences=_sentences(texts), reason=f"{few}: a paragraph is a document")
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    sentences: Literal["sentencex", "none"] = "sentencex" if _mean_words(lines) > _MAX_LINE_WORDS else "none"
    return Structure("line", sentences=sentences, reason=f"{few}: a line is a document")


def _sentences(texts: Sequence[str]) -> Literal["line", "sentencex"]:
    """By line where most lines are short and begin anew, as in verse and in text with a sentence a line; else by punctuation."""
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    opening = sum(not line[0].islower() for line in lines)
    return "line" if lines and opening > 0.9 * len(lines) and _mean_words(lines) < _MAX_LINE_WORDS / 2 else "sentencex"


def _separated(texts: Sequence[str]) -> bool:
    """Whether nearly all files have several separators."""
    return bool(texts) and sum(len(re.findall(f"(?m)^{_SEPARATOR}$", text)) > 2 for text in texts) > 0.8 * len(texts)


def _section_sizes(text: str, pattern: str) -> list[int]:
    """Words from each line that matches to the next."""
    matches, sizes = re.compile(pattern.removeprefix(r"\n").removesuffix(r"\n")).fullmatch, list[int]()
    for line in text.splitlines():
        if matches(line.strip()):
            sizes.append(0)
        if sizes:
            sizes[-1] += len(line.split())
    return sizes


def _mean_words(lines: Sequence[str]) -> float:
    return sum(len(line.split()) for line in lines) / max(1, len(lines))
