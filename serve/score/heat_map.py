"""Writes a heat map of surprisal as a self-contained HTML page: the darker a word, the higher its surprisal."""

import html
from collections.abc import Iterable
from typing import IO

from packlm.scoring.sentences import SentenceScore

MAX_SENTENCES = 2000
"""Most sentences on a page, which a browser has to hold."""
FULL = 20.0
"""The surprisal in bits of the darkest color."""

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
<p class="note">{note} The color of a word is its surprisal in bits; hover over it for surprisal, entropy and entropy reduction.
Dotted: unknown to the model. After each sentence: its perplexity per token.</p>
<p class="scale">{scale}</p>
"""


def write(scores: Iterable[SentenceScore], stream: IO[str], title: str, note: str, omitted: int = 0) -> None:
    """Writes a page. `note`: the context of the predictions; `omitted`: number of further sentences that are not shown."""
    scale = " ".join(f'<b style="background:{color(bits)}">{bits}</b>' for bits in (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20))
    stream.write(_PAGE.format(title=html.escape(title), note=html.escape(note), scale=scale))
    for number, score in enumerate(scores, 1):
        values = zip(
            score.words, score.word_surprisals.tolist(), score.word_entropies.tolist(), score.entropy_reductions.tolist(),
            score.unknown.tolist(), strict=True,
        )  # fmt: skip
        words = " ".join(_word(*value) for value in values)
        stream.write(f'<p><span class="number">{number}</span>{words} <span class="number">{score.perplexity:,.1f}</span></p>\n')
    if omitted:
        stream.write(f'<p class="note">{omitted:,} further sentences are not shown.</p>\n')
    stream.write("</html>\n")


def color(bits: float) -> str:
    """White for 0 bits, over yellow, to red for `FULL` bits; black text is readable on all of them."""
    share = min(max(bits, 0.0) / FULL, 1.0)
    return f"hsl({55 - 45 * share:.0f} 95% {100 - 38 * share:.0f}%)"


def _word(word: str, surprisal: float, entropy: float, reduction: float, unknown: bool) -> str:
    title = f"surprisal {surprisal:.2f}, entropy {entropy:.2f}, reduction {reduction:.2f}"
    mark = ' class="unknown"' if unknown else ""
    return f'<b{mark} style="background:{color(surprisal)}" title="{title}">{html.escape(word)}</b>'
