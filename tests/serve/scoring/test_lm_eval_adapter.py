"""The adapter to lm-evaluation-harness gives the engine's own scores, and tasks defined here run through it; skipped without `lm_eval`."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from packlm.config import Config
from packlm.engine import Engine
from tests.evaluation.test_texts_in_memory import RULES, TEXT
from tests.scoring.test_sentences import chain
from tests.small_models import WORDS, trained_on

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of other libraries
QUESTIONS = [("the cat", [" sees a dog.", " dog dog", " often"]), ("a small tree", [" eats", " under the river."])]


@pytest.fixture(scope="module")
def harness() -> Any:
    from serve import lm_eval_adapter

    return lm_eval_adapter


@pytest.fixture(params=["sentences", "streams"])
def model(harness: Any, made: Callable[[str], Config], request: pytest.FixtureRequest) -> Any:
    """A model of single sentences, and the same as if it had been trained on documents."""
    adapter = harness.PacklmLM(str(made("bpe").run.dir / "model"), batch_size=3)
    adapter.engine = trained_on(adapter.engine, request.param, document="file")
    return adapter


def request_of(*args: object) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def test_a_continuation_has_the_rest_of_the_chain(model: Any) -> None:
    engine: Engine = model.engine
    cases = [(context, choice) for context, choices in [*QUESTIONS, ("", ["tree", " the"])] for choice in choices]
    results = model.loglikelihood([request_of(*case) for case in cases])
    for (context, choice), (value, greedy) in zip(cases, results, strict=True):
        steps = chain(engine, [context + choice])[0][:-1]
        begin = len(engine.encoder.encode_open(context.strip()))
        assert value == pytest.approx(sum(float(log_probs[target]) for target, log_probs in steps[begin:]), abs=1e-4)
        assert greedy == all(int(log_probs.argmax()) == target for target, log_probs in steps[begin:])
    assert model.loglikelihood([request_of("the", "")]) == [(0.0, True)]


def test_only_the_most_likely_continuation_is_greedy(harness: Any, made: Callable[[str], Config]) -> None:
    model = harness.PacklmLM(str(made("word").run.dir / "model"))
    cases = [(word, [token for token, _ in model.engine.next(word, 2)]) for word in WORDS]
    cases = [(word, tokens) for word, tokens in cases if not any(token.startswith("<") for token in tokens)]
    results = model.loglikelihood([request_of(word, f" {token}") for word, tokens in cases for token in tokens])
    assert [greedy for _, greedy in results] == [True, False] * len(cases) and cases


def test_a_token_across_the_border_belongs_to_the_continuation(model: Any) -> None:
    encode = model.engine.encoder.encode_open
    splits = [(word, cut) for word in WORDS for cut in range(1, len(word))]
    word, cut = next((word, cut) for word, cut in splits if len(encode(word[:cut])) + len(encode(word[cut:])) > len(encode(word)))
    whole, apart = encode(word), encode(word[:cut])
    begin = next(cut for cut in range(len(whole)) if list(whole[: cut + 1]) != list(apart[: cut + 1]))
    ((value, _),) = model.loglikelihood([request_of(word[:cut], word[cut:])])
    steps = chain(model.engine, [word])[0][:-1]
    assert begin < len(apart)
    assert value == pytest.approx(sum(float(log_probs[target]) for target, log_probs in steps[begin:]), abs=1e-4)


def test_a_whole_text_is_measured_as_evaluate_measures_it(model: Any) -> None:
    texts = ["the cat sees.\na dog eats.\n", "tree", "", "a small dog\n\nunder the tree."]
    results = model.loglikelihood_rolling([request_of(text) for text in texts])
    for text, value in zip(texts, results, strict=True):
        lines = [line for line in text.split("\n") if line.strip()]
        scores = model.engine.score(lines, document=model.engine.info.context != "sentences")
        assert value == pytest.approx(sum(score.log_prob for score in scores), abs=1e-3)
        if lines:
            tokens = sum(len(score.tokens) for score in scores)
            expected = model.engine.perplexity([text]) if model.engine.info.context != "streams" else np.exp(-value / tokens)
            assert np.exp(-value / tokens) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("document", ["file", "line", "paragraph", "pattern"])
def test_a_whole_text_follows_all_rules_of_the_model(model: Any, document: str) -> None:
    for reset in ("document", "none"):
        model.engine = trained_on(model.engine, model.engine.info.segments, reset, document=document, **RULES)
        values = model.loglikelihood_rolling([request_of(TEXT), request_of("tree")])
        for value, text in zip(values, (TEXT, "tree"), strict=True):
            assert value == pytest.approx(-model.engine.evaluate(text)["nll"], rel=1e-6)


def test_generations_end_where_they_are_told_to(model: Any) -> None:
    engine: Engine = model.engine
    for prompt in ("the cat", ""):
        text = engine.generate([prompt], strategy="greedy", max_tokens=20, stop_at_eos=engine.isolated_sentences)[0][0].text
        stop = text[len(text) // 2 : len(text) // 2 + 2]
        wholly, cut, never = model.generate_until([
            request_of(prompt, {"until": [], "max_gen_toks": 20}), request_of(prompt, {"until": ["@", stop], "max_gen_toks": 20}),
            request_of(prompt, {"until": "\0", "max_gen_toks": 20, "do_sample": True, "temperature": 0}),
        ])  # fmt: skip
        assert wholly == never == text and cut == text[: text.index(stop)]
    sampling = {"strategy": "sample", "temperature": 2.0, "top_k": 200, "top_p": 1.0, "samples": 1, "max_tokens": 400}
    on, ended = (engine.generate(["the"], 1, stop_at_eos=stop, **sampling)[0][0].text for stop in (False, True))
    assert ended != on
    asks = {"max_gen_toks": 400, "do_sample": True, "temperature": 2.0, "top_k": 200}
    assert model.generate_until([request_of("the", asks)]) == [ended if engine.isolated_sentences else on]


def test_a_task_defined_here_gives_the_engines_scores(harness: Any, made: Callable[[str], Config], tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    records = [{"context": context, "choices": [choice.strip() for choice in choices], "label": 0} for context, choices in QUESTIONS]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    common = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'data.jsonl'}}}}}\ntest_split: test\n"
    (tmp_path / "choices.yaml").write_text(
        f"task: packlm_choices\n{common}output_type: multiple_choice\ndoc_to_text: '{{{{context}}}}'\n"
        "doc_to_choice: choices\ndoc_to_target: label\nmetric_list: [{metric: acc}]\n", encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "texts.yaml").write_text(
        f"task: packlm_texts\n{common}output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: '{{context}}'\nmetric_list: [{metric: word_perplexity}]\n", encoding="utf-8",
    )  # fmt: skip
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model="packlm", model_args={"path": str(made("bpe").run.dir / "model")}, tasks=["packlm_choices", "packlm_texts"],
        task_manager=manager, bootstrap_iters=0,
    )  # fmt: skip
    engine = Engine.load(made("bpe").run.dir / "model")
    right = 0
    for (context, choices), sample in zip(QUESTIONS, results["samples"]["packlm_choices"], strict=True):
        totals = []
        for choice, (value, _) in zip(choices, sample["filtered_resps"], strict=True):
            begin = len(engine.encoder.encode_open(context))
            totals.append(float(engine.score([context + choice])[0].log_probs[begin:-1].sum()))
            assert float(value) == pytest.approx(totals[-1], abs=1e-4)
        right += int(np.argmax(totals)) == 0
    assert results["results"]["packlm_choices"]["acc,none"] == right / len(QUESTIONS)
    log_p = sum(score.log_prob for score in engine.score([context for context, _ in QUESTIONS]))
    words = sum(len(context.split()) for context, _ in QUESTIONS)
    assert results["results"]["packlm_texts"]["word_perplexity,none"] == pytest.approx(np.exp(-log_p / words), rel=1e-4)
