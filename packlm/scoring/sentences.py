"""Scores of sentences: log-probability of each, and surprisal and entropy of its tokens and words.

A sentence e_1 ... e_M ends with `<eos>` and is read after `<eos>`: by itself, from a zero state, so that its score depends on nothing else;
or after the preceding sentences of its document. The empty sentence is `<eos>` alone, with P(<eos> | <eos>); the probabilities of all
sentences sum to 1.

Shapes: M tokens of a sentence, W words of it, N tokens of many, S segments (sentences or documents), V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from packlm.dataset.views import Sentences, concatenated_ranges
from packlm.evaluation.evaluate import first_targets, length_batches, sentence_segments
from packlm.model.finite import check as check_finite
from packlm.model.finite import named, perplexity
from packlm.model.language_model import Batch, LanguageModel
from packlm.model.recurrence import State
from packlm.scoring.words import surprisals, words_of
from packlm.text.encoder import Encoder

CHUNK_SENTENCES = 4096
"""Sentences encoded and sorted by length at a time; bounds memory, does not affect the scores."""
BITS = 1 / np.log(2)
"""Bits per nat."""


@dataclass(frozen=True)
class Sentence:
    """A sentence to score."""

    text: str
    opens: bool = True
    """Whether it is the first of a document; otherwise the sentences before it can be its context."""


@dataclass(frozen=True)
class SentenceScore:
    """Scores of a sentence. log P is in nats; surprisals (Hale 2001) and entropies are in bits."""

    text: str
    tokens: list[str]
    """Its tokens, `<eos>` last."""
    log_probs: np.ndarray
    """[M] ln P of each token given those before it, in nats."""
    entropies: np.ndarray
    """[M] entropy of the next-token distribution before each token, in bits."""
    words: list[str]
    """[W] the whitespace-separated words of the text, punctuation attached."""
    word_surprisals: np.ndarray
    """[W] surprisal of each word, in bits: the sum over its tokens, the end of the word included (`packlm.scoring.words`)."""
    word_entropies: np.ndarray
    """[W] entropy of the next-token distribution before each word's first token, in bits."""
    entropy_reductions: np.ndarray
    """[W] that entropy minus the one after the word, in bits; negative if uncertainty grew (Hale 2006 counts that as 0)."""
    unknown: np.ndarray
    """[W] bool: whether the word contains a token that is unknown to the model."""
    end_surprisal: float
    """Surprisal of the end of the sentence, given that its last word ended, in bits; it belongs to no word."""

    @property
    def log_prob(self) -> float:
        """ln P(sentence), in nats."""
        return float(self.log_probs.sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean loss per token, `<eos>` included."""
        with named(f"the sentence {self.text[:60]!r}"):
            return perplexity(-float(self.log_probs.mean()))

    @property
    def surprisals(self) -> np.ndarray:
        """[M] surprisal of each token, in bits."""
        return np.abs(self.log_probs) * BITS


def score(
    model: LanguageModel, encoder: Encoder, sentences: Iterable[Sentence], batch_tokens: int, carry_state: bool = False
) -> Iterator[SentenceScore]:  # fmt: skip
    """Scores sentences, in order, without the whitespace around them.

    Args:
        carry_state: whether a sentence that opens no document starts from the final state of the one before it.

    Raises:
        NotFinite: a score is infinite or NaN.
    """
    remaining, state = iter(sentences), None
    while chunk := list(islice(remaining, CHUNK_SENTENCES)):
        texts, ids, ends, segments, starts = encoded(model, encoder, chunk, carry_state, state)
        scores, state = segment_scores(model, segments, batch_tokens, encoder.opens_word, carry_state, starts)
        yield from _by_sentence(encoder, texts, ids, ends, scores)


Starts = tuple[State, np.ndarray]
"""(states, [S] index of the one that each segment starts from)."""


def encoded(
    model: LanguageModel, encoder: Encoder, chunk: list[Sentence], carry_state: bool, state: State | None
) -> tuple[list[str], np.ndarray, np.ndarray, Sentences, Starts | None]:
    """Encodes some of many sentences, which the arguments of `score` describe; `state`: the final state of the sentence before them.

    Returns (texts, ids of all, end of each sentence, segments to read, what they start from).
    """
    texts = [sentence.text.strip() for sentence in chunk]
    ids, ends = encoder.encode_sentences(texts)
    opens = np.array([sentence.opens or not carry_state for sentence in chunk])
    segments = Sentences.from_arrays(ids, ends[np.append(opens[1:], True)])
    starts = None
    if state is not None and not opens[0]:
        states = tuple(torch.cat([zero, final], 1) for zero, final in zip(model.zero_state(1), state, strict=True))
        starts = states, np.arange(len(segments)) == 0
    return texts, ids, ends, segments, starts


@dataclass(frozen=True)
class TokenScores:
    """Scores of tokens, each [N] float64."""

    losses: np.ndarray
    """-ln P, in nats."""
    entropies: np.ndarray
    """Of the next-token distribution before each token, in nats."""
    boundaries: np.ndarray
    """-ln P that the next token is one that can only follow the end of a word, in nats."""
    ranks: np.ndarray
    """Number of ids that were more likely; 0 for the most likely token."""


def segment_scores(
    model: LanguageModel, segments: Sentences, batch_tokens: int, opens_word: np.ndarray | None = None, return_state: bool = False,
    starts: Starts | None = None,
) -> tuple[TokenScores, State | None]:  # fmt: skip
    """Scores all tokens of segments (each ends with `<eos>`, and starts after it), end to end.

    Args:
        opens_word: [V] bool, the tokens that `TokenScores.boundaries` refers to.
        return_state: whether to return the final state of the last segment, too.
        starts: (states, [S] index of the one that each segment starts from); zero states if None.

    Raises:
        NotFinite: a loss or an entropy is infinite or NaN.
    """
    scores = np.empty((4, segments.tokens))
    marked = None if opens_word is None else torch.from_numpy(opens_word).to(model.embedding.weight.device)

    def take(batch: Batch, state: State | None, targets: np.ndarray) -> State | None:
        rows, state = model.scores(batch, state, marked)
        for kind, values in zip(scores, (rows.losses, rows.entropies, -rows.marked, rows.likelier), strict=True):
            kind[targets] = values.double().cpu().numpy()
        return state

    final = read_segments(model, segments, batch_tokens, take, return_state, starts)
    check_finite(scores[:2], "the loss or entropy of a token")
    return TokenScores(*scores), final


def read_segments(
    model: LanguageModel, segments: Sentences, batch_tokens: int, take: Callable[[Batch, State | None, np.ndarray], State | None],
    return_state: bool = False, starts: Starts | None = None,
) -> State | None:  # fmt: skip
    """Reads all segments, in batches of similar length; returns the final state of the last one if asked for.

    Args:
        take: reads a batch: (batch, states it starts from, indices of its targets among those of all segments) -> final states.

    Other arguments as of `segment_scores`.
    """
    device, offsets, final = model.embedding.weight.device, first_targets(segments), None
    for batch in length_batches(segments.lengths, np.arange(len(segments)), batch_tokens):
        state = None
        if starts is not None:
            indices = torch.from_numpy(starts[1][batch].astype(np.int64)).to(device)
            state = tuple(part.index_select(1, indices) for part in starts[0])
        for piece in sentence_segments(segments, offsets, batch, batch_tokens, return_state):
            state = take(piece.batch(device), state, concatenated_ranges(piece.keys, piece.keys + piece.lengths))
        last = np.flatnonzero(batch == len(segments) - 1)
        if return_state and len(last):
            index = int(last[0])
            assert state is not None
            final = tuple(part[:, index : index + 1].clone() for part in state)
    return final


def _by_sentence(encoder: Encoder, texts: list[str], ids: np.ndarray, ends: np.ndarray, scores: TokenScores) -> Iterator[SentenceScore]:
    """Splits scores into sentences, and sums them over words."""
    words = words_of(encoder, texts)
    opens_word = np.zeros(len(ids), bool) if encoder.opens_word is None else encoder.opens_word[ids]
    # Where the probabilities of all tokens that open a word underflow, what is left of them is the token that came.
    boundaries = np.where(np.isfinite(scores.boundaries), scores.boundaries, scores.losses)
    word_surprisals = surprisals(words, scores.losses, np.where(opens_word, boundaries, 0.0), ends) * BITS
    entropies = scores.entropies * BITS
    first_entropies = entropies[words.firsts]
    unknown = np.zeros(len(word_surprisals), bool)
    if encoder.unk is not None:
        unknown[words.owners[ids == encoder.unk]] = True
    token = word = 0
    for text, sentence_words, token_end, word_end in zip(texts, words.texts, ends.tolist(), words.ends.tolist(), strict=True):
        losses, last = scores.losses[token:token_end], word_end - 1
        yield SentenceScore(
            text=text,
            tokens=[encoder.token(int(id)) for id in ids[token:token_end]],
            log_probs=-losses,
            entropies=entropies[token:token_end],
            words=sentence_words,
            word_surprisals=word_surprisals[word:last],
            word_entropies=first_entropies[word:last],
            entropy_reductions=first_entropies[word:last] - first_entropies[word + 1 : word_end],
            unknown=unknown[word:last],
            end_surprisal=float(word_surprisals[last]),
        )
        token, word = token_end, word_end
