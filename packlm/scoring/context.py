"""Log-probabilities of texts given contexts, for rescoring: many hypotheses share a context.

A context is read once, from a zero state, each of its sentences closed with `<eos>`; every text after it starts from its final state. Equal
texts after equal contexts are scored once.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from packlm.dataset.views import Sentences
from packlm.evaluation.evaluate import length_batches
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from packlm.scoring.sentences import CHUNK_SENTENCES, segment_scores
from packlm.text.encoder import Encoder

Context = tuple[str, ...]
"""Preceding sentences, in order."""


def log_probs(
    model: LanguageModel, encoder: Encoder, texts: Sequence[tuple[Context, str]], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Scores texts given their contexts, without the whitespace around them.

    Args:
        texts: n pairs (context, text).

    Returns ([n] float64 ln P(text and its `<eos>` | context), in nats; [n] number of unknown tokens of the text).

    Raises:
        NotFinite: a score is infinite or NaN.
    """
    distinct: dict[tuple[Context, str], int] = {}
    indices = np.array([distinct.setdefault((context, text.strip()), len(distinct)) for context, text in texts], np.int64)
    remaining, totals, unknown = iter(distinct), [np.zeros(0)], [np.zeros(0, np.int64)]
    while chunk := list(islice(remaining, CHUNK_SENTENCES)):
        chunk_totals, chunk_unknown = _score_chunk(model, encoder, chunk, batch_tokens)
        totals.append(chunk_totals)
        unknown.append(chunk_unknown)
    return np.concatenate(totals)[indices], np.concatenate(unknown)[indices]


def _score_chunk(
    model: LanguageModel, encoder: Encoder, texts: Sequence[tuple[Context, str]], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    contexts: dict[Context, int] = {(): 0}
    indices = np.array([contexts.setdefault(context, len(contexts)) for context, _ in texts])
    ids, ends = encoder.encode_sentences([text for _, text in texts])
    starts = (_context_states(model, encoder, list(contexts)[1:], batch_tokens), indices) if len(contexts) > 1 else None
    scores, _ = segment_scores(model, Sentences.from_arrays(ids, ends), batch_tokens, starts=starts)
    begins = np.concatenate([[0], ends[:-1]])
    totals = -np.add.reduceat(scores.losses, begins)
    return totals, np.add.reduceat((ids == encoder.unk).astype(np.int64), begins)


@torch.inference_mode()
def _context_states(model: LanguageModel, encoder: Encoder, contexts: Sequence[Context], batch_tokens: int) -> State:
    """The zero state, then the state after each of n contexts without the last `<eos>`, which the text starts after; [C, 1 + n, H]."""
    device = model.embedding.weight.device
    ids = [np.concatenate([[encoder.eos], encoder.encode_sentences([text.strip() for text in context])[0][:-1]]) for context in contexts]
    lengths = np.array([len(row) for row in ids])
    states = model.zero_state(1 + len(contexts))
    for batch in length_batches(lengths, np.arange(len(ids)), batch_tokens):
        batch_ids = torch.from_numpy(np.concatenate([ids[index] for index in batch]).astype(np.int64)).to(device)
        _, final = model.hidden(batch_ids, lengths[batch])
        assert final is not None
        for part, final_part in zip(states, final, strict=True):
            part[:, torch.from_numpy(batch + 1).to(device)] = final_part
    return states
