"""The HTTP server: answers are the engine's, alone, together and piece by piece; what is wrong is refused in the words of the request."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from packlm.config import Config
from packlm.engine import Engine
from serve.http.completions import Completions, Limits

Post = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def address(engine: Engine) -> Iterator[str]:
    """A server of a model of single sentences."""
    import uvicorn

    from serve.http import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    application = app.create(Completions(engine, "tiny", Limits(prompt_tokens=200, max_tokens=40)), concurrency=4)
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def post(address: str) -> Post:
    def send(**body: Any) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read().decode()
                return response.status, text if body.get("stream") else json.loads(text)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    return send


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(address + path, timeout=60) as response:
        return str(response.read().decode())


PROMPTS = ["the cat", "a small", "Ümlaut "]


def test_continuations_are_the_engines(post: Post, engine: Engine) -> None:
    status, answer = post(prompt=PROMPTS, max_tokens=9, temperature=0.8, top_p=0.9, top_k=40, n=2, best_of=3, seed=7)
    assert status == 200, answer
    expected = engine.generate(PROMPTS, 7, strategy="sample", samples=3, max_tokens=9, temperature=0.8, top_p=0.9, top_k=40)
    chosen = [one for several in expected for one in several[:2]]
    assert [choice["text"] for choice in answer["choices"]] == [one.text for one in chosen]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop" if one.finished else "length" for one in chosen]
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"]["completion_tokens"] == sum(one.tokens for several in expected for one in several)
    greedy = post(prompt="the cat", temperature=0, max_tokens=9)[1]["choices"]
    assert [choice["text"] for choice in greedy] == [engine.generate("the cat", strategy="greedy", max_tokens=9)[0][0].text]


def test_requests_together_are_answered_as_alone(post: Post) -> None:
    bodies = [
        {"prompt": prompt, "max_tokens": 12, "seed": seed, "logprobs": top} for prompt in PROMPTS for seed, top in ((1, 0), (1, 2), (2, 3))
    ]
    alone = [post(**body)[1]["choices"] for body in bodies]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda body: post(**body)[1]["choices"], bodies))
    assert together == alone


def test_log_probabilities_are_those_of_the_text(post: Post, engine: Engine) -> None:
    text = "the cat sees a dog."
    (score,) = engine.score(text)
    ids = engine.encoder.encode_open(text).tolist()
    for prompt in (text, ids):
        answer = post(prompt=prompt, max_tokens=0, echo=True, logprobs=2)[1]
        (choice,) = answer["choices"]
        found = choice["logprobs"]
        assert choice["text"] == text and found["tokens"] == score.tokens[:-1]
        assert found["token_logprobs"] == pytest.approx(score.log_probs[:-1].tolist(), rel=1e-4)
        for top, value in zip(found["top_logprobs"], found["token_logprobs"], strict=True):
            assert len(top) == 2 and max(top.values()) >= value - 1e-6
        assert found["text_offset"] == [len("".join(found["tokens"][:index])) for index in range(len(ids))]
        assert answer["usage"] == {"prompt_tokens": len(ids), "completion_tokens": 0, "total_tokens": len(ids)}
    best = engine.next("the cat", 3)
    (choice,) = post(prompt="the cat", max_tokens=3, temperature=0, logprobs=3)[1]["choices"]
    assert list(choice["logprobs"]["top_logprobs"][0]) == [token for token, _ in best]
    (continued,) = engine.generate("the cat", strategy="greedy", max_tokens=3)[0]
    assert sum(choice["logprobs"]["token_logprobs"]) == pytest.approx(continued.log_prob, rel=1e-5)


def test_a_stop_string_ends_the_text_and_is_no_part_of_it(post: Post, engine: Engine) -> None:
    whole = post(prompt="the cat", max_tokens=30, seed=3)[1]["choices"][0]["text"]
    stop = whole[4:6]
    (choice,) = post(prompt="the cat", max_tokens=30, seed=3, stop=[stop, "never there"])[1]["choices"]
    assert choice["text"] == whole[: whole.index(stop)] and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", [None, "e", ["a dog", "zz"]])
def test_a_stream_has_the_same_text_in_pieces(post: Post, stop: Any) -> None:
    for prompt in PROMPTS:
        for seed in (1, 2, 3):
            body = {"prompt": prompt, "max_tokens": 25, "seed": seed, "stop": stop}
            (expected,) = post(**body)[1]["choices"]
            status, text = post(**body, stream=True)
            events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
            assert status == 200 and events.pop() == "[DONE]"
            choices = [json.loads(event)["choices"][0] for event in events]
            assert "".join(choice["text"] for choice in choices) == expected["text"]
            assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [expected["finish_reason"]]
    assert stop or len(choices) > 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "prompt: Field required"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"prompt": "a", "max_tokens": 41}, "max_tokens: 41; at most 40 are generated"),
        ({"prompt": "the cat " * 200}, "at most 200 are read for one request"),
        ({"prompt": [1, 99_999]}, "prompt 0: id 99999; there are 0 to"),
        ({"prompt": "a", "temprature": 1}, "temprature: Extra inputs are not permitted"),
        ({"prompt": "a", "max_tokens": 0}, "add echo = true"),
        ({"prompt": "a", "n": 3, "best_of": 2}, "best_of = 2 is less than n = 3"),
        ({"prompt": "a", "temperature": 0, "n": 2}, "temperature = 0 is greedy decoding"),
        ({"prompt": "a", "stream": True, "n": 2}, "stream: one continuation of one prompt"),
        ({"prompt": "a", "presence_penalty": 1}, "presence_penalty: Input should be less than or equal to 0"),
        ({"prompt": "a", "stop": ""}, "an empty string matches every text"),
        ({"prompt": []}, "prompt"),
    ],
)
def test_a_wrong_request_is_refused(post: Post, body: dict[str, Any], message: str) -> None:
    status, answer = post(**body)
    assert status == 400 and message in answer["error"]["message"] and answer["error"]["type"] == "invalid_request_error"
    assert "\n" not in answer["error"]["message"] or "wrong configuration" in answer["error"]["message"]


def test_too_many_requests_are_told_to_come_again(post: Post, address: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        statuses = [status for status, _ in pool.map(lambda seed: post(prompt="the", max_tokens=40, n=20, seed=seed), range(12))]
    assert set(statuses) <= {200, 503} and 200 in statuses and 503 in statuses
    lines = dict(line.rsplit(" ", 1) for line in get(address, "/metrics").splitlines() if not line.startswith("#"))
    assert int(lines['packlm_requests_total{status="503"}']) == statuses.count(503) and lines["packlm_requests_running"] == "0"
    assert int(lines['packlm_tokens_total{kind="completion"}']) > 0


def test_health_and_models(address: str, engine: Engine, made: Callable[[str], Config]) -> None:
    assert json.loads(get(address, "/health")) == {"status": "ok", "model": "tiny", "weights": engine.info.weights[:16]}
    assert json.loads(get(address, "/v1/models"))["data"][0]["id"] == "tiny"
    assert "/v1/completions" in get(address, "/openapi.json")
