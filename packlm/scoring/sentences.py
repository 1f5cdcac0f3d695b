"""The probability of sentences: log P(E) of each, and surprisal and entropy of each of its tokens and words.

A sentence E = e_1 ... e_M ends with `<eos>` and is read after `<eos>`: by itself, from a zero state, so that its score depends on
nothing around it; or after the sentences before it in its document. The empty sentence is `<eos>` alone: P(E) = P(<eos> | <eos>), and
the probabilities of all sentences, that one included, sum to 1.

Shapes: M tokens of a sentence, W words of it, N tokens of many, S segments (sentences or documents).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences, concatenated_ranges
from packlm.evaluation.evaluate import first_targets, length_batches, sentence_segments
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from packlm.scoring import words as words_
from packlm.text.encoder import Encoder

CHUNK_SENTENCES = 4096
"""Sentences encoded and sorted by length at a time; bounds memory, changes no number."""
BITS = 1 / np.log(2)


@dataclass(frozen=True)
class Sentence:
    """A sentence to score."""

    text: str
    opens: bool = True
    """Whether it opens a document; otherwise it is read after the sentence before it."""


@dataclass(frozen=True)
class SentenceScore:
    """How likely a sentence is. Surprisals (Hale 2001) and entropies in bits."""

    text: str
    tokens: list[str]
    """Its tokens, `<eos>` last."""
    log_probs: np.ndarray
    """[M] log P of each token after those before it, in nats."""
    entropies: np.ndarray
    """[M] of the distribution each token was drawn from."""
    words: list[str]
    """[W] what stands between white space."""
    word_surprisals: np.ndarray
    """[W] sum over the word's tokens; the chance that it ends there is in it (`packlm.scoring.words`)."""
    word_entropies: np.ndarray
    """[W] of the distribution the word's first token was drawn from."""
    entropy_reductions: np.ndarray
    """[W] that entropy less the one after the word; negative where the word left more open (Hale 2006 takes that for 0)."""
    unknown: np.ndarray
    """[W] bool: whether a token of the word is the unknown one."""
    end_surprisal: float
    """What the end of the sentence adds, given that its last word ended: no word's."""

    @property
    def log_prob(self) -> float:
        """log P(E), in nats."""
        return float(self.log_probs.sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of a token, `<eos>` included."""
        return float(np.exp(-self.log_probs.mean()))

    @property
    def surprisals(self) -> np.ndarray:
        """[M] surprisal of each token."""
        return np.abs(self.log_probs) * BITS


def score(
    model: LanguageModel, encoder: Encoder, sentences: Iterable[Sentence], batch_tokens: int, carry_on: bool = False
) -> Iterator[SentenceScore]:  # fmt: skip
    """Scores sentences, in order; the white space around one is no part of it.

    Args:
        carry_on: whether a sentence that opens no document starts from the state the one before it left.

    Raises:
        PacklmError: a score is infinite or not a number.
    """
    rest, state = iter(sentences), None
    while chunk := list(islice(rest, CHUNK_SENTENCES)):
        texts = [sentence.text.strip() for sentence in chunk]
        ids, ends = encoder.encode_sentences(texts)
        opens = np.array([sentence.opens or not carry_on for sentence in chunk])
        segments = Sentences.from_arrays(ids, ends[np.append(opens[1:], True)])
        starts = None
        if state is not None and not opens[0]:
            both = tuple(torch.cat([zero, left], 1) for zero, left in zip(model.recurrence.zero_state(1), state, strict=True))
            starts = both, np.arange(len(segments)) == 0
        found, state = segment_scores(model, segments, batch_tokens, encoder.opens_word, carry_on, starts)
        yield from _by_sentence(encoder, texts, ids, ends, found)


@dataclass(frozen=True)
class TokenScores:
    """What the model says of tokens, each [N] float64; in nats, but for the last."""

    losses: np.ndarray
    entropies: np.ndarray
    boundaries: np.ndarray
    """-log P that a token comes which can only follow the end of a word."""
    likelier: np.ndarray
    """How many ids were likelier: 0 where the likeliest came."""


def segment_scores(
    model: LanguageModel, segments: Sentences, batch_tokens: int, opens_word: np.ndarray | None = None, carry_on: bool = False,
    starts: tuple[State, np.ndarray] | None = None,
) -> tuple[TokenScores, State | None]:  # fmt: skip
    """What the model says of all tokens of segments (each ends in `<eos>`, and starts after it), end to end.

    Args:
        opens_word: [V] bool, the tokens that `TokenScores.boundaries` are about.
        carry_on: whether the state that the last segment leaves is wanted; it comes second.
        starts: (states, [S] which of them each segment starts from); zeros if None.
    """
    device, places = model.embedding.weight.device, first_targets(segments)
    found = np.empty((4, segments.tokens))
    marked = None if opens_word is None else torch.from_numpy(opens_word).to(device)
    final = None
    for batch in length_batches(segments.lengths, np.arange(len(segments)), batch_tokens):
        state = None
        if starts is not None:
            own = torch.from_numpy(starts[1][batch].astype(np.int64)).to(device)
            state = tuple(part.index_select(1, own) for part in starts[0])
        for piece in sentence_segments(segments, places, batch, batch_tokens, carry_on):
            scores, state = model.scores(piece.batch(device), state, marked)
            where = concatenated_ranges(piece.keys, piece.keys + piece.lengths)
            for row, values in zip(found, (scores.losses, scores.entropies, -scores.marked, scores.likelier), strict=True):
                row[where] = values.double().cpu().numpy()
        last = np.flatnonzero(batch == len(segments) - 1)
        if carry_on and len(last):
            place = int(last[0])
            assert state is not None
            final = tuple(part[:, place : place + 1].clone() for part in state)
    return TokenScores(*found), final


def _by_sentence(encoder: Encoder, texts: list[str], ids: np.ndarray, ends: np.ndarray, found: TokenScores) -> Iterator[SentenceScore]:
    """Cuts what was found into sentences, and sums it up over words."""
    words = words_.words_of(encoder, texts)
    seen = np.zeros(len(ids), bool) if encoder.opens_word is None else encoder.opens_word[ids]
    surprisals = words_.surprisals(words, found.losses, np.where(seen, found.boundaries, 0.0), ends) * BITS
    entropies = found.entropies * BITS
    first_entropies = entropies[words.firsts]
    unknown = np.zeros(len(surprisals), bool)
    if encoder.unk is not None:
        unknown[words.owners[ids == encoder.unk]] = True
    token = word = 0
    for text, own, token_end, word_end in zip(texts, words.texts, ends.tolist(), words.ends.tolist(), strict=True):
        losses, last = found.losses[token:token_end], word_end - 1
        if not np.isfinite(losses).all():
            raise PacklmError(f"the score of {text[:60]!r} is {-losses.sum()}: the model's weights are unusable")
        yield SentenceScore(
            text=text,
            tokens=[encoder.token(int(id)) for id in ids[token:token_end]],
            log_probs=-losses,
            entropies=entropies[token:token_end],
            words=own,
            word_surprisals=surprisals[word:last],
            word_entropies=first_entropies[word:last],
            entropy_reductions=first_entropies[word:last] - first_entropies[word + 1 : word_end],
            unknown=unknown[word:last],
            end_surprisal=float(surprisals[last]),
        )
        token, word = token_end, word_end
