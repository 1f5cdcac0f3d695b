"""log P of many texts, each read after other texts or after nothing: what rescoring asks, where many hypotheses share their context.

A context is read once, sentence after sentence, each closed with `<eos>`, from a zero state; every text that follows it starts from the
state it leaves. Equal texts after equal contexts are scored once.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from packlm.base.errors import PacklmError
from packlm.dataset.views import Sentences
from packlm.evaluation.evaluate import length_batches
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State
from packlm.scoring.sentences import CHUNK_SENTENCES, segment_scores
from packlm.text.encoder import Encoder

Context = tuple[str, ...]


def log_probs(
    model: LanguageModel, encoder: Encoder, asked: Sequence[tuple[Context, str]], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Scores texts, the white space around them aside.

    Args:
        asked: n texts, each with what is read before it.

    Returns ([n] float64 log P of each text and its `<eos>`, in nats; [n] how many of its tokens are the unknown one).

    Raises:
        PacklmError: a score is infinite or not a number.
    """
    places: dict[tuple[Context, str], int] = {}
    which = np.array([places.setdefault((context, text.strip()), len(places)) for context, text in asked], np.int64)
    distinct, totals, unknown = iter(places), [np.zeros(0)], [np.zeros(0, np.int64)]
    while chunk := list(islice(distinct, CHUNK_SENTENCES)):
        own, own_unknown = _chunk(model, encoder, chunk, batch_tokens)
        totals.append(own)
        unknown.append(own_unknown)
    return np.concatenate(totals)[which], np.concatenate(unknown)[which]


def _chunk(
    model: LanguageModel, encoder: Encoder, asked: Sequence[tuple[Context, str]], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    contexts: dict[Context, int] = {(): 0}
    which = np.array([contexts.setdefault(context, len(contexts)) for context, _ in asked])
    ids, ends = encoder.encode_sentences([text for _, text in asked])
    starts = (_after(model, encoder, list(contexts)[1:], batch_tokens), which) if len(contexts) > 1 else None
    found, _ = segment_scores(model, Sentences.from_arrays(ids, ends), batch_tokens, starts=starts)
    begins = np.concatenate([[0], ends[:-1]])
    totals = -np.add.reduceat(found.losses, begins)
    if not np.isfinite(totals).all():
        wrong = int(np.flatnonzero(~np.isfinite(totals))[0])
        raise PacklmError(f"the score of {asked[wrong][1][:60]!r} is {totals[wrong]}: the model's weights are unusable")
    return totals, np.add.reduceat((ids == encoder.unk).astype(np.int64), begins)


@torch.inference_mode()
def _after(model: LanguageModel, encoder: Encoder, contexts: Sequence[Context], batch_tokens: int) -> State:
    """[C, 1 + n, H] the zero state, and the one after each of n contexts, all but the `<eos>` that the next text starts after."""
    device = model.embedding.weight.device
    read = [np.concatenate([[encoder.eos], encoder.encode_sentences([text.strip() for text in context])[0][:-1]]) for context in contexts]
    lengths = np.array([len(ids) for ids in read])
    states = model.recurrence.zero_state(1 + len(contexts))
    for batch in length_batches(lengths, np.arange(len(read)), batch_tokens):
        ids = torch.from_numpy(np.concatenate([read[index] for index in batch]).astype(np.int64)).to(device)
        _, final = model.hidden(ids, lengths[batch])
        assert final is not None
        for part, new in zip(states, final, strict=True):
            part[:, torch.from_numpy(batch + 1).to(device)] = new
    return states
