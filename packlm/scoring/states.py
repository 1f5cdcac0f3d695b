"""Hidden states of sentences: what every layer puts out after each word or token, for studies that probe what a model represents.

A word's vector is the layer's output after the word's last token (and before anything of the next word is read).

Shapes: N tokens of many sentences, W words or tokens of one sentence, H units of a layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from packlm.dataset.views import Sentences
from packlm.model.finite import check as check_finite
from packlm.model.language_model import Batch, LanguageModel
from packlm.model.recurrence import State
from packlm.scoring.sentences import Sentence, Starts, encoded, read_segments
from packlm.scoring.words import words_of
from packlm.text.encoder import Encoder

CHUNK_SENTENCES = 512
"""Sentences read at a time; bounds memory, does not affect the states but for rounding."""


@dataclass(frozen=True)
class SentenceStates:
    """The states of a sentence."""

    units: list[str]
    """[W] its words, or its tokens without `<eos>`."""
    layers: list[np.ndarray]
    """[W, H] float32 of each layer asked for."""


def states(
    model: LanguageModel, encoder: Encoder, sentences: Iterable[Sentence], layers: Sequence[int], unit: Literal["word", "token"],
    batch_tokens: int, carry_state: bool = False,
) -> Iterator[SentenceStates]:  # fmt: skip
    """The states of sentences, in order.

    Args:
        layers: which: 0 is the embedding, 1 the first recurrent layer.
        carry_state: whether a sentence that opens no document starts from the final state of the one before it.

    Raises:
        NotFinite: a state is infinite or NaN.
    """
    remaining, state = iter(sentences), None
    while chunk := list(islice(remaining, CHUNK_SENTENCES)):
        texts, ids, ends, segments, starts = encoded(model, encoder, chunk, carry_state, state)
        if unit == "word":
            words = words_of(encoder, texts)
            names, unit_ends = words.texts, words.ends - np.arange(1, len(texts) + 1)
            # Of all words but `<eos>`, which ends each sentence, the last token is the one before the next word's first.
            last_tokens = np.delete(np.append(words.firsts[1:], len(ids)) - 1, words.ends - 1)
        else:
            names = [[encoder.token(int(id)) for id in part[:-1]] for part in np.split(ids, ends[:-1])]
            unit_ends, last_tokens = ends - np.arange(1, len(texts) + 1), np.delete(np.arange(len(ids)), ends - 1)
        vectors, state = _vectors(model, segments, last_tokens, layers, batch_tokens, carry_state, starts)
        for name, *parts in zip(names, *(np.split(of_layer, unit_ends[:-1]) for of_layer in vectors), strict=True):
            yield SentenceStates(name, parts)


def _vectors(
    model: LanguageModel, segments: Sentences, tokens: np.ndarray, layers: Sequence[int], batch_tokens: int, return_state: bool,
    starts: Starts | None,
) -> tuple[list[np.ndarray], State | None]:  # fmt: skip
    """The vectors of some tokens, by their indices, in each of some layers; and the final state of the last segment if asked for."""
    widths = (model.settings.embedding_width, *model.settings.widths)
    vectors = [np.empty((len(tokens), widths[layer]), np.float32) for layer in layers]
    place = np.full(segments.tokens + 1, -1)
    place[tokens + 1] = np.arange(len(tokens))  # the model has read a token where it predicts the next one

    def take(batch: Batch, state: State | None, targets: np.ndarray) -> State | None:
        outputs, final = model.layers(batch.inputs, batch.lengths, state)
        rows = np.flatnonzero(place[targets] >= 0)
        for of_layer, layer in zip(vectors, layers, strict=True):
            of_layer[place[targets[rows]]] = outputs[layer].float().cpu().numpy()[rows]
        return final

    final = read_segments(model, segments, batch_tokens, take, return_state, starts)
    for of_layer, layer in zip(vectors, layers, strict=True):
        check_finite(of_layer, f"a state of layer {layer}")
    return vectors, final
