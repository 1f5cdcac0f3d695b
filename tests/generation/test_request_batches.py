"""Requests of several threads share batches, and each gets what it would get alone."""

import time
from collections.abc import Callable, Hashable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from packlm.base.errors import RequestError
from packlm.engine import Continuation, Engine
from packlm.generation.request_batches import RequestBatches


class Recorded:
    """A `run` that answers with the prompts in capitals and refuses "bad"; its first call waits until `queued` others wait."""

    def __init__(self, queued: int):
        self.calls: list[tuple[Hashable, list[str]]] = []
        self.queued = queued
        self.batches = RequestBatches(max_prompts=4)

    def answer(self, key: Hashable, prompts: list[str]) -> list[str]:
        return self.batches.answer(key, prompts, lambda all_prompts: self.run(key, all_prompts))

    def run(self, key: Hashable, prompts: list[str]) -> list[str]:
        self.calls.append((key, prompts))
        while len(self.calls) == 1 and len(self.batches._waiting) < self.queued:
            time.sleep(0.001)
        if "bad" in prompts:
            raise RequestError("bad")
        return [prompt.upper() for prompt in prompts]


def together(answer: Callable[[Hashable, list[str]], list[Any]], calls: Sized, requests: Sequence[tuple[Hashable, list[str]]]) -> list[Any]:
    """The answers to requests of as many threads, all but the first made after the first of `calls`; an error stands for its answer."""

    def ask(number: int) -> Any:
        while number and not len(calls):
            time.sleep(0.001)
        try:
            return answer(*requests[number])
        except RequestError as error:
            return str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(ask, range(len(requests))))


def test_requests_that_wait_run_together_by_key_and_size() -> None:
    run = Recorded(queued=5)
    requests = [(1, ["a"]), (1, ["b"]), (1, ["c", "d"]), (2, ["e"]), (1, ["f"]), (2, ["g"])]
    assert together(run.answer, run.calls, requests) == [[prompt.upper() for prompt in prompts] for _, prompts in requests]
    assert run.calls[0] == (1, ["a"]) and len(run.calls) == 3
    assert sorted((key, sorted(prompts)) for key, prompts in run.calls[1:]) == [(1, ["b", "c", "d", "f"]), (2, ["e", "g"])]


def test_a_batch_of_several_requests_is_bounded_and_a_single_one_is_not() -> None:
    run = Recorded(queued=3)
    requests = [(1, list("abcdefgh")), (1, list("ijk")), (1, list("lmn")), (1, ["o"])]
    assert together(run.answer, run.calls, requests) == [[prompt.upper() for prompt in prompts] for _, prompts in requests]
    assert len(run.calls[0][1]) == 8 and max(len(prompts) for _, prompts in run.calls[1:]) <= 4


def test_an_error_is_that_of_its_request_alone() -> None:
    run = Recorded(queued=3)
    assert together(run.answer, run.calls, [(1, ["a"]), (1, ["b"]), (1, ["bad"]), (1, ["c"])]) == [["A"], ["B"], "bad", ["C"]]
    assert run.answer(1, ["again"]) == ["AGAIN"]


@pytest.mark.parametrize("strategy", ["sample", "beam"])
def test_continuations_are_those_of_each_request_alone(engine: Engine, strategy: str) -> None:
    settings = {"strategy": strategy, "samples": 2, "max_tokens": 6}
    sizes: list[int] = []

    def run(prompts: list[str]) -> list[list[Continuation]]:
        sizes.append(len(prompts))
        return engine.generate(prompts, seed=3, **settings)

    batches = RequestBatches()
    prompts = [["the cat"], ["a", ""], ["the river", "the cat"], ["under"]]
    answers = together(partial(batches.answer, run=run), sizes, [(None, part) for part in prompts])
    assert answers == [engine.generate(part, seed=3, **settings) for part in prompts]
    assert sum(sizes) == 6
