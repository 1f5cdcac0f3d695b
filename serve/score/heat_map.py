"""A heat map of surprisal over text: a page of HTML that needs nothing else, the darker a word the less it was expected."""

import html
from collections.abc import Iterable
from typing import IO

from packlm.scoring.sentences import SentenceScore

SENTENCES = 2000
"""Most sentences for a page; a browser has to hold it."""
FULL = 20.0
"""Bits from which on a word is as dark as can be."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 17px/2 Georgia, serif; max-width: 50em; margin: 2em auto; padding: 0 1em; color: #1a1a1a; background: #fff }}
h1 {{ font-size: 1.2em }}
p {{ margin: .3em 0 }}
b {{ font-weight: normal; border-radius: .2em; padding: .1em .15em }}
b.unknown {{ text-decoration: underline dotted #a00 }}
.number, .note {{ color: #777; font: .75em/1.4 sans-serif }}
.number {{ display: inline-block; min-width: 3em }}
.scale b {{ padding: .1em .8em }}
</style>
<h1>{title}</h1>
<p class="note">{note} Each word on the color of its surprisal in bits; its number, the entropy before it and what it took of that
appear under the pointer. Dotted: unknown to the model. After each sentence: its perplexity per token.</p>
<p class="scale">{scale}</p>
"""


def write(scores: Iterable[SentenceScore], stream: IO[str], title: str, note: str, left_out: int = 0) -> None:
    """Writes a page. `note`: what precedes a prediction; `left_out`: how many further sentences there were."""
    scale = " ".join(f'<b style="background:{color(bits)}">{bits}</b>' for bits in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20))
    stream.write(_PAGE.format(title=html.escape(title), note=html.escape(note), scale=scale))
    for number, score in enumerate(scores, 1):
        values = zip(
            score.words, score.word_surprisals.tolist(), score.word_entropies.tolist(), score.entropy_reductions.tolist(),
            score.unknown.tolist(), strict=True,
        )  # fmt: skip
        words = " ".join(_word(*value) for value in values)
        stream.write(f'<p><span class="number">{number}</span>{words} <span class="number">{score.perplexity:,.1f}</span></p>\n')
    if left_out:
        stream.write(f'<p class="note">{left_out:,} further sentences are not shown.</p>\n')
    stream.write("</html>\n")


def color(bits: float) -> str:
    """White for what was certain, over yellow, to red for what nobody expected; black text can be read on all of it."""
    share = min(max(bits, 0.0) / FULL, 1.0)
    return f"hsl({55 - 45 * share:.0f} 95% {100 - 38 * share:.0f}%)"


def _word(word: str, surprisal: float, entropy: float, reduction: float, unknown: bool) -> str:
    title = f"surprisal {surprisal:.2f}, entropy {entropy:.2f}, reduction {reduction:.2f}"
    mark = ' class="unknown"' if unknown else ""
    return f'<b{mark} style="background:{color(surprisal)}" title="{title}">{html.escape(word)}</b>'
