"""Text in, text out: how prompts are read, and what comes back."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config
from packlm.engine import Continuation, Engine
from tests.small_models import trained_on


def split_at_eos(engine: Engine, ids: np.ndarray) -> list[str]:
    """The text of each run of ids between two <eos>."""
    cuts = np.flatnonzero(ids == engine.encoder.eos)
    return [engine.encoder.decode(part[part != engine.encoder.eos]) for part in np.split(ids, cuts)[1:]]


def test_a_model_of_sentences_reads_a_prompt_as_the_beginning_of_one(engine: Engine) -> None:
    ids, unfinished = engine.encode_prompt("  the cat\na dog \n")
    assert ids[0] == engine.encoder.eos and ids[1:].tolist() == unfinished.tolist()
    assert split_at_eos(engine, ids) == ["the cat\na dog"]


def test_other_models_read_a_prompt_as_their_training_text(engine: Engine) -> None:
    text = "the cat.\n\n a dog\n"
    lines = {"document": "line", "sentences": "none"}
    for trained, expected in (
        (trained_on(engine, "streams"), ["the cat.", "a dog"]),
        (trained_on(engine, "rows"), ["the cat.", "a dog"]),
        (trained_on(engine, "rows", **lines), ["a dog"]),  # nothing flows from one document to the next
        (trained_on(engine, "streams", reset="none", **lines), ["the cat.", "a dog"]),
    ):
        ids, unfinished = trained.encode_prompt(text)
        assert split_at_eos(engine, ids) == expected
        assert unfinished.tolist() == engine.encoder.encode_open("a dog").tolist()


@pytest.mark.parametrize("prompt", ["", " \n"])
def test_an_empty_prompt_reads_eos_alone(engine: Engine, prompt: str) -> None:
    for one in (engine, trained_on(engine, "streams")):
        ids, unfinished = one.encode_prompt(prompt)
        assert ids.tolist() == [engine.encoder.eos] and len(unfinished) == 0


def test_half_a_character_is_no_prompt(engine: Engine) -> None:
    with pytest.raises(RequestError, match="surrogate"):
        engine.generate(["\ud800"])


def test_prompt_and_continuation_make_up_a_text_that_scores_the_same(word_engine: Engine) -> None:
    prompts = ["the cat", "", "a small dog quietly", "the cat"]
    results = word_engine.generate(prompts, strategy="beam", beams=3, samples=3, max_tokens=9)
    for prompt, continuations in zip(prompts, results, strict=True):
        assert len(continuations) == 3
        for item in continuations:
            (score,), words = word_engine.score([prompt + item.text]), len(prompt.split())
            assert len(score.tokens) == words + item.tokens + (not item.finished)
            assert item.log_prob == pytest.approx(score.log_probs[words : words + item.tokens].sum(), abs=1e-3)
            assert item.text.startswith(" ") == bool(prompt and item.text)


def ended(item: Continuation) -> bool:
    """Whether the last token was `<eos>`."""
    return item.finished and not any(string in item.text for string in (" dog", "cat"))


RULES: list[dict[str, Any]] = [
    {"strategy": "greedy", "banned": ["the", "sees"]},
    {"strategy": "sample", "samples": 4, "temperature": 2.0, "no_repeat_ngram": 2, "min_tokens": 4},
    {"strategy": "sample", "samples": 4, "temperature": 2.0, "replacement": False, "stop": [" dog", "cat"]},
    {"strategy": "beam", "beams": 4, "samples": 4, "length_penalty": 1.0, "top_k": 3},
]


@pytest.mark.parametrize("settings", RULES, ids=str)
def test_log_prob_is_the_score_of_the_text_whatever_the_rules(engine: Engine, word_engine: Engine, settings: dict[str, Any]) -> None:
    compared = 0
    for one in (engine, word_engine):
        prompts = ["the cat", "", "a small"]
        for prompt, continuations in zip(prompts, one.generate(prompts, max_tokens=9, **settings), strict=True):
            known = len(one.encoder.encode_open(prompt))
            for item in continuations:
                (score,) = one.score([prompt + item.text])
                if len(score.tokens) == known + item.tokens + (not ended(item)):  # tokens that the tokenizer would choose as well
                    assert item.log_prob == pytest.approx(score.log_probs[known : known + item.tokens].sum(), abs=1e-3)
                    compared += 1
    assert compared >= 3


@pytest.mark.parametrize("kind", ["bpe", "word", "character"])
def test_texts_contain_no_banned_word_and_end_at_stop_strings(made: Callable[[str], Config], kind: str) -> None:
    engine = Engine.load(made(kind).run.dir / "model")
    settings: dict[str, Any] = {"strategy": "sample", "samples": 60, "temperature": 3.0, "max_tokens": 25, "stop_at_eos": False}

    def words(texts: Iterable[str]) -> list[str]:
        return [word for text in texts for word in re.findall(r"\w+", text)]

    (free,) = engine.generate(["a"], **settings)
    banned = [word for word, _ in Counter(words("a" + item.text for item in free)).most_common(6) if word != "a"]
    assert not set(words("a" + item.text for item in engine.generate(["a"], banned=banned, **settings)[0])) & set(banned)
    pairs = Counter(item.text[start : start + 2] for item in free for start in range(len(item.text) - 1))
    (stopped,) = engine.generate(["a"], stop=[pairs.most_common(20)[-1][0]], **settings)
    ends = [item.text.find(pairs.most_common(20)[-1][0]) for item in stopped]
    assert [item.finished for item in stopped] == [end >= 0 for end in ends]
    assert all(item.tokens == 25 for item in stopped if not item.finished) and 0 < sum(item.finished for item in stopped) < 60


def test_a_prompt_gives_the_same_alone_and_in_a_batch_to_the_bit(engine: Engine) -> None:
    prompts = ["the cat", "", "a small dog quietly", "a", "the", "under the river"]
    for settings in RULES:
        together = engine.generate(prompts, seed=3, batch_tokens=400, **settings)
        assert [engine.generate([prompt], seed=3, **settings)[0] for prompt in prompts] == together


def test_settings_that_change_nothing_are_warned_of(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.generate([""], strategy="greedy", beams=3, max_tokens=2)
    assert [record.getMessage() for record in caplog.records] == ["generate.beams is for strategy = beam, not greedy"]


def test_a_continuation_of_bytes_follows_the_prompt_without_a_gap(engine: Engine) -> None:
    (items,) = engine.generate(["the ca"], strategy="sample", samples=30, top_k=5, max_tokens=3)
    assert any(item.text and not item.text[0].isspace() for item in items)


def test_equal_prompts_are_read_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    read, original = [], engine.stepper.read
    monkeypatch.setattr(engine.stepper, "read", lambda prompts: read.append(len(prompts)) or original(prompts))
    cat, a, cat_again, a_again = engine.generate(["the cat", "a", "the cat ", "a"], strategy="sample", samples=4, max_tokens=5)
    assert read == [2] and cat == cat_again and a == a_again != cat


def test_a_generation_that_goes_on_tells_sentences_apart(word_engine: Engine) -> None:
    (items,) = word_engine.generate(["the"], seed=3, strategy="sample", samples=20, temperature=3.0, max_tokens=30, stop_at_eos=False)
    assert {item.tokens for item in items} == {30} and not any(item.finished for item in items)
    assert any("\n" in item.text for item in items)


def test_the_state_is_zeroed_after_a_sentence_as_in_training(engine: Engine) -> None:
    lines = {"document": "line", "sentences": "none"}
    assert engine.isolated_sentences and trained_on(engine, "rows", **lines).isolated_sentences
    assert not trained_on(engine, "rows").isolated_sentences
    assert not trained_on(engine, "streams", reset="none", **lines).isolated_sentences


def test_settings_come_from_the_folder_unless_given(engine: Engine) -> None:
    (items,) = engine.generate(["the"], strategy="sample", samples=2, temperature=3.0)
    assert max(item.tokens for item in items) <= engine.generation_config["max_tokens"] == 12
    with pytest.raises(RequestError, match=r"generate\.sampels.*did you mean generate\.samples"):
        engine.generate(["the"], sampels=2)


def test_next_gives_the_distribution_after_a_prompt(engine: Engine) -> None:
    items = engine.next("the cat", top=engine.info.vocab_size + 5)
    probabilities = [probability for _, probability in items]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5) and probabilities == sorted(probabilities, reverse=True)
    assert len(engine.next("the cat", 3)) == 3
    ids, _ = engine.encode_prompt("the cat")
    with torch.inference_mode():
        log_probs, _ = engine.model.read(torch.from_numpy(ids), np.array([len(ids)]))
    assert items[0] == (engine.encoder.token(int(log_probs.argmax())), pytest.approx(float(log_probs.max().exp()), rel=1e-5))


def test_perplexity_is_that_of_all_sentences_together(engine: Engine) -> None:
    texts = ["the cat sees.\na dog", "tree"]
    scores = engine.score(["the cat sees.", "a dog", "tree"])
    tokens = sum(len(score.tokens) for score in scores)
    assert engine.perplexity(texts) == pytest.approx(np.exp(-sum(score.log_prob for score in scores) / tokens), rel=1e-5)
    with pytest.raises(RequestError, match="no text"):
        engine.perplexity([])


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PacklmError, match="no model here"):
        Engine.load(tmp_path)


@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_an_opened_model_rounds_no_products(made: Callable[[str], Config], precision: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.allow_tf32 = True
        Engine.load(made("bpe").run.dir / "model", precision=precision)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
