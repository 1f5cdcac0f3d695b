"""Two networks with n-grams and a cache: by the definition, token by token; the same in any segments; the same bits in any company."""

import math

import numpy as np
import pytest
import torch

from packlm import config
from packlm.generation.stepper import Stepper
from packlm.interpolation.cache import CacheComponent
from packlm.interpolation.kneser_ney import kneser_ney
from packlm.interpolation.model import InterpolatedModel, interpolated
from packlm.interpolation.ngrams import NGramComponent
from packlm.model.language_model import Batch, build
from tests.small_models import wild

VOCAB, EOS, SIZE, THETA, ORDER = 11, 0, 6, 0.7, 4
G_WEIGHT, N_WEIGHT, C_WEIGHT = 0.15, 0.3, 0.2
"""Of a second network, the n-grams and the cache."""
GENERATOR = np.random.default_rng(4)
IDS = np.where(np.arange(60) % 7 == 6, EOS, GENERATOR.integers(1, 5, 60))
NGRAMS = kneser_ney(IDS, np.append(np.flatnonzero(IDS == EOS) + 1, 60), VOCAB, ORDER)


def mixed(double: bool = True) -> InterpolatedModel:
    networks = [
        wild(build(config.Model(hidden=6), VOCAB, seed=2), 4.0),
        wild(build(config.Model(cell="gru", layers=3, hidden=(5, 9, 4), embedding=7, tied=False), VOCAB, seed=3), 4.0),
    ]
    components = [NGramComponent(NGRAMS, EOS), CacheComponent(SIZE, THETA, VOCAB)]
    weights = [1 - G_WEIGHT - N_WEIGHT - C_WEIGHT, G_WEIGHT, N_WEIGHT, C_WEIGHT]
    return InterpolatedModel([network.double() if double else network for network in networks], components, weights)


def by_definition(model: InterpolatedModel, ids: list[int]) -> list[list[float]]:
    """P of every id after each of `ids`, read from the beginning, in floats."""
    states, cache, sentence, rows = [network.zero_state(1) for network in model.networks], [], [], []
    for position, id in enumerate(ids):
        hiddens, of_networks = [], []
        with torch.inference_mode():
            for number, network in enumerate(model.networks):
                hidden, states[number] = network.hidden(torch.tensor([id]), np.ones(1, np.int64), states[number])
                hiddens.append(hidden)
                of_networks.append(network.projection(hidden)[0].softmax(0).tolist())
        hidden = hiddens[0]
        sentence = [] if id == EOS else [*sentence, id]
        of_ngrams = [math.exp(NGRAMS.log_probs(np.array([*sentence, word]), np.array([len(sentence) + 1]))[-1]) for word in range(VOCAB)]
        of_cache, weights = [0.0] * VOCAB, [math.exp(THETA * float(hidden[0] @ key)) for key, _ in cache[-SIZE:]]
        for weight, (_, follower) in zip(weights, cache[-SIZE:], strict=True):
            of_cache[follower] += weight / sum(weights)
        share = 1.0 if cache else 1 - C_WEIGHT
        parts = zip(*of_networks, of_ngrams, of_cache, strict=True)
        rows.append([sum(weight * p for weight, p in zip(model.weights, ps, strict=True)) / share for ps in parts])
        if position + 1 < len(ids):
            cache.append((hidden[0], ids[position + 1]))
    return rows


INPUTS = [EOS, *IDS[:-1].tolist()]


@pytest.mark.parametrize("pieces", [[60], [1] * 60, [1, 2, 20, 3, 34]])
def test_every_token_has_the_probability_of_the_definition(pieces: list[int]) -> None:
    model, expected = mixed(), by_definition(mixed(), INPUTS)
    marked, losses, entropies, likelier, of_marked = torch.arange(VOCAB) < 3, [], [], [], []
    state, done = None, 0
    for size in pieces:
        ids, targets = (torch.tensor(all_ids[done : done + size]) for all_ids in (INPUTS, IDS.tolist()))
        scores, state = model.scores(Batch(ids, targets, np.array([size]), None, return_state=True), state, marked)
        for values, part in zip((losses, entropies, likelier, of_marked), scores, strict=True):
            values += part.tolist()
        done += size
    for row, target, loss, entropy, rank, share in zip(expected, IDS.tolist(), losses, entropies, likelier, of_marked, strict=True):
        assert sum(row) == pytest.approx(1)
        assert loss == pytest.approx(-math.log(row[target]), rel=1e-9)
        assert entropy == pytest.approx(-sum(p * math.log(p) for p in row), rel=1e-9)
        assert rank == sum(p > row[target] * (1 + 1e-12) for p in row)
        assert share == pytest.approx(math.log(sum(row[:3])), rel=1e-9)


def test_segments_of_a_batch_do_not_see_each_other() -> None:
    model, lengths = mixed(), [5, 1, 9, 3]
    texts = [[EOS, *GENERATOR.integers(0, 5, length - 1).tolist()] for length in lengths]
    ids = torch.tensor([id for one in texts for id in one])
    (log_probs, state), steps = model.read(ids, np.array(lengths)), [model.read(torch.tensor(one), np.array([len(one)])) for one in texts]
    for row, (text, (alone, alone_state)) in enumerate(zip(texts, steps, strict=True)):
        assert log_probs[row].exp().tolist() == pytest.approx(by_definition(model, text)[-1], rel=1e-9)
        torch.testing.assert_close(log_probs[row], alone[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(tuple(part[:, row : row + 1] for part in state), alone_state, rtol=1e-12, atol=1e-12)


def test_layers_are_those_of_the_first_network_and_states_of_all() -> None:
    model, lengths, ids = mixed(), np.array([5, 2]), torch.tensor([EOS, 1, 2, 3, 4, EOS, 3])
    layers, state = model.layers(ids, lengths)
    expected, _ = model.networks[0].layers(ids, lengths)
    assert all(torch.equal(one, other) for one, other in zip(layers, expected, strict=True))
    _, after = model.read(ids, lengths)
    torch.testing.assert_close(state, after, rtol=1e-12, atol=1e-12)


def test_steps_are_the_definition_and_have_the_same_bits_in_any_company() -> None:
    model = mixed(double=False)
    stepper, texts = Stepper(model), [np.append(EOS, GENERATOR.integers(0, 5, length)) for length in (13, 2, 0, 7)]
    with torch.inference_mode():
        log_probs, state = stepper.read(texts)
        for row, text in enumerate(texts):
            assert log_probs[row].exp().tolist() == pytest.approx(by_definition(model, text.tolist())[-1], rel=1e-4)
            alone, alone_state = stepper.read([text])
            assert torch.equal(alone[0], log_probs[row])
            assert all(torch.equal(one, part[:, row : row + 1]) for one, part in zip(alone_state, state, strict=True))
        ids = torch.tensor([1, 2, 3, 4])
        together, _ = stepper.step(ids, state)
        for row in range(4):
            alone, _ = stepper.step(ids[row : row + 1], tuple(part[:, row : row + 1] for part in state))
            assert torch.equal(alone[0], together[row])


def test_a_sentence_model_forgets_the_sentence_before() -> None:
    stepper = Stepper(mixed(double=False), restart_after=EOS)
    with torch.inference_mode():
        _, state = stepper.read([np.array([EOS, 1, 2, 3])])
        after, _ = stepper.step(torch.tensor([EOS]), state)
        fresh, _ = stepper.read([np.array([EOS])])
    assert torch.equal(after, fresh)


def test_another_component_leaves_the_old_ones_their_proportions() -> None:
    once, cache = mixed(), CacheComponent(3, 0.1, VOCAB)
    twice = interpolated(once, cache, 0.5)
    assert twice.weights == pytest.approx([0.175, G_WEIGHT / 2, N_WEIGHT / 2, C_WEIGHT / 2, 0.5])
    assert twice.networks == once.networks
    assert interpolated(once.networks[0], cache, 0.5).weights == (0.5, 0.5)
