"""Where sentences end. Nothing is lost: the white space around sentences is kept beside them."""

from itertools import pairwise
from typing import Literal

from sentencex import get_sentence_boundaries

Rule = Literal["line", "sentencex", "none"]


def split(text: str, rule: Rule, language: str = "en") -> tuple[str, list[tuple[str, str]]]:
    """Splits a document into sentences.

    Args:
        rule: "line" cuts at line feeds, "sentencex" where that library says, "none" nowhere.
        language: ISO 639 code, for sentencex.

    Returns (lead, [(sentence, gap), ...]) with lead + all sentences and gaps == text. No sentence is empty or has white space
    at either end; lead and gaps are white space only.
    """
    lead = ""
    sentences: list[str] = []
    gaps: list[str] = []
    for start, end in pairwise([*_starts(text, rule, language), len(text)]):
        piece = text[start:end]
        sentence = piece.strip()
        at = len(piece) - len(piece.lstrip()) if sentence else len(piece)
        if gaps:
            gaps[-1] += piece[:at]
        else:
            lead += piece[:at]
        if sentence:
            sentences.append(sentence)
            gaps.append(piece[at + len(sentence) :])
    return lead, list(zip(sentences, gaps, strict=True))


def _starts(text: str, rule: Rule, language: str) -> list[int]:
    """Indices at which pieces of the text start, rising from 0."""
    if rule == "line":
        starts = [0]
        while (found := text.find("\n", starts[-1])) >= 0:
            starts.append(found + 1)
        return starts
    if rule == "sentencex":
        # Start indices alone: on some texts the pieces that sentencex returns leave characters out between them.
        return sorted({0, *(boundary["start_index"] for boundary in get_sentence_boundaries(language, text))})
    return [0]
