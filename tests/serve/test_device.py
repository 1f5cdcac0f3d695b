"""A model on a device with its own memory gives the scores and generations that it gives on the CPU."""

import pytest

from packlm import config as configuration
from packlm import dataset
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from tests.fake_device import CPU, DEVICE, fake_device

PROMPTS = ["the cat", "", "a dog sees", "Ümlaut tree under"]
GENERATIONS = {
    "greedy": {"strategy": "greedy"},
    "beam": {"strategy": "beam", "beams": 3, "samples": 2, "no_repeat_ngram": 2, "banned": ("cat",), "min_tokens": 3},
    "sample": {"samples": 2, "top_k": 9, "temperature": 0.8},
    "filters": {"samples": 2, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9, "stop": ("tree", "e")},
    "without replacement": {"samples": 3, "replacement": False},
}
MEASURES = {
    "plain": {},
    "streams": {"context": "streams", "streams": 3},
    "cache": {"context": "documents", "cache": 20, "cache_theta": 0.3, "cache_share": 0.1},
    "dynamic": {"context": "streams", "streams": 1, "dynamic_lr": 0.001, "dynamic_window": 30},
}


@pytest.fixture(scope="module")
def both(made):
    folder = made("word").run.dir / "model"
    with fake_device():
        remote = Engine.load(folder, DEVICE)
    return Engine.load(folder, CPU), remote


@pytest.mark.parametrize("settings", GENERATIONS.values(), ids=GENERATIONS)
def test_text_is_the_same(both, settings):
    local, remote = both
    expected = local.generate(PROMPTS, seed=3, max_tokens=6, **settings)
    with fake_device():
        results = remote.generate(PROMPTS, seed=3, max_tokens=6, **settings)
    assert [[item.text for item in items] for items in results] == [[item.text for item in items] for items in expected]
    for items, reference in zip(results, expected, strict=True):
        assert [item.log_prob for item in items] == pytest.approx([item.log_prob for item in reference], rel=1e-5)


def test_scores_are_the_same(both):
    local, remote = both
    expected = local.score(PROMPTS[2:], document=True)
    likely = local.next("the cat", 5)
    with fake_device():
        results = remote.score(PROMPTS[2:], document=True)
        assert dict(remote.next("the cat", 5)) == pytest.approx(dict(likely))
    for score, reference in zip(results, expected, strict=True):
        assert score.log_probs == pytest.approx(reference.log_probs, rel=1e-5)
        assert score.word_surprisals == pytest.approx(reference.word_surprisals, rel=1e-5)


@pytest.mark.parametrize("evaluate", MEASURES.values(), ids=MEASURES)
def test_a_split_measures_the_same(both, made, evaluate):
    settings, folder = configuration.resolve({"evaluate": {**evaluate, "split": "validation"}}).evaluate, made("word").dataset.dir
    manifest = dataset.read_manifest(folder)

    def measured(engine):
        return measure.measure_dataset(engine.model, engine.info, folder, manifest, settings, Ranks(0, 1, engine.device))

    expected = measured(both[0])
    with fake_device():
        results = measured(both[1])
    assert (results["nll"], results["accuracy_at_1"]) == pytest.approx((expected["nll"], expected["accuracy_at_1"]), rel=1e-5)


@pytest.mark.parametrize("settings", [{"strategy": "greedy"}, {"strategy": "sample", "samples": 2}], ids=["greedy", "sample"])
def test_sampling_synchronizes_with_the_device_only_every_eight_tokens(both, settings):
    counts = []
    with fake_device() as waits:
        for tokens in (17, 25):
            both[1].generate(PROMPTS, seed=3, max_tokens=tokens, stop_at_eos=False, **settings)
            counts.append(sum(waits.values()))
            waits.clear()
    assert 0 < counts[1] - counts[0] <= 2
