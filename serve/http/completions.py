"""Answers requests for completions with a loaded model.

Shapes: T tokens of a text, V vocabulary.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch

from packlm.base.errors import RequestError
from packlm.config import Generate
from packlm.engine import Engine
from packlm.generation import decoding
from packlm.generation.prompt_batch import Generation
from packlm.generation.request_batches import RequestBatches

from .schema import CompletionRequest


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    prompt_tokens: int = 16_384
    """Most tokens of all prompts of a request."""
    max_tokens: int = 2_048
    """Most tokens of a continuation."""


@dataclass(frozen=True)
class _Prompt:
    text: str | None
    """None if it was given as ids."""
    ids: np.ndarray
    """What is read, `<eos>` first."""


@dataclass(frozen=True)
class _Scored:
    """The tokens of a text, each but the first `<eos>`."""

    log_probs: list[float]
    top: list[dict[str, float]]


class Completions:
    """The model of a server."""

    def __init__(self, engine: Engine, name: str, limits: Limits):
        self.engine, self.name, self.limits, self.batches = engine, name, limits, RequestBatches()

    def answer(self, request: CompletionRequest) -> dict[str, Any]:
        """The whole answer, as JSON values.

        Raises:
            RequestError: a prompt is too long or has no such id, or a setting cannot be.
        """
        prompts, settings = self._prompts(request), self._settings(request)
        if request.max_tokens:
            key = (request.seed, settings.model_dump_json())
            items = self.batches.answer(key, prompts, lambda all_prompts: self._generate(all_prompts, settings, request.seed))
        else:
            items = [[Generation(np.zeros(0, np.int64), 0.0, False)] for _ in prompts]
        chosen = [(prompt, one) for prompt, several in zip(prompts, items, strict=True) for one in several[: request.n]]
        scored: list[_Scored] = [_Scored([], [])] * len(chosen)
        if request.logprobs is not None:
            texts = [np.concatenate([prompt.ids, one.ids]) for prompt, one in chosen]
            scored = self.batches.answer(request.logprobs, texts, lambda all_texts: self._score(all_texts, request.logprobs or 0))
        choices = [
            self._choice(request, index, prompt, one, scores)
            for index, ((prompt, one), scores) in enumerate(zip(chosen, scored, strict=True))
        ]
        read, generated = sum(len(prompt.ids) - 1 for prompt in prompts), sum(len(one.ids) for several in items for one in several)
        usage = {"prompt_tokens": read, "completion_tokens": generated, "total_tokens": read + generated}
        return self._envelope() | {"choices": choices, "usage": usage}

    def stream(self, request: CompletionRequest) -> Iterator[str]:
        """The text as server-sent events, each with what has been added; the pieces together are the text of `answer`.

        Raises:
            RequestError: as `answer`, before the first event.
        """
        (prompt,), settings = self._prompts(request), self._settings(request)
        pieces: SimpleQueue[np.ndarray | Generation | BaseException] = SimpleQueue()

        def run(prompts: list[_Prompt]) -> list[Any]:
            return self._generate(prompts, settings, request.seed, pieces.put)

        def work() -> None:
            try:
                ((generation,),) = self.batches.answer(object(), [prompt], run)
                pieces.put(generation)
            except BaseException as error:
                pieces.put(error)

        Thread(target=work, daemon=True).start()
        return self._events(request, prompt, pieces)

    def _events(
        self, request: CompletionRequest, prompt: _Prompt, pieces: "SimpleQueue[np.ndarray | Generation | BaseException]"
    ) -> Iterator[str]:
        envelope, sent = self._envelope(), ""
        held_back = max((len(stop) for stop in request.stops), default=1) - 1
        while True:
            item = pieces.get()
            if isinstance(item, BaseException):
                yield _event({"error": {"message": str(item), "type": "server_error"}})
                return
            if isinstance(item, Generation):
                text, reason = self._text(request, prompt, item), _finish_reason(item)
                yield _event(envelope | {"choices": [{"text": text[len(sent) :], "index": 0, "logprobs": None, "finish_reason": reason}]})
                yield "data: [DONE]\n\n"
                return
            # What may still become part of a stop string, or of a character of several bytes, waits.
            text = self._decode(prompt, item).rstrip("\N{REPLACEMENT CHARACTER}")
            ready = text[: len(text) - held_back]
            if len(ready) > len(sent):
                yield _event(envelope | {"choices": [{"text": ready[len(sent) :], "index": 0, "logprobs": None, "finish_reason": None}]})
                sent = ready

    def _prompts(self, request: CompletionRequest) -> list[_Prompt]:
        prompts, encoder = [], self.engine.encoder
        for number, prompt in enumerate(request.prompts):
            if isinstance(prompt, str):
                prompts.append(_Prompt(prompt, self.engine.encode_prompt(prompt)[0]))
                continue
            if wrong := [id for id in prompt if not 0 <= id < encoder.vocab_size]:
                raise RequestError(f"prompt {number}: id {wrong[0]}; there are 0 to {encoder.vocab_size - 1}")
            prompts.append(_Prompt(None, np.array([encoder.eos, *prompt])))
        if (total := sum(len(prompt.ids) for prompt in prompts)) > self.limits.prompt_tokens:
            raise RequestError(f"prompt: {total:,} tokens; at most {self.limits.prompt_tokens:,} are read for one request")
        return prompts

    def _settings(self, request: CompletionRequest) -> Generate:
        if request.max_tokens > self.limits.max_tokens:
            raise RequestError(f"max_tokens: {request.max_tokens:,}; at most {self.limits.max_tokens:,} are generated")
        return decoding.resolve(request.settings(), request.seed, self.engine.info.vocab_size)[0]

    def _generate(
        self, prompts: Sequence[_Prompt], settings: Generate, seed: int, on_ids: Callable[[np.ndarray], None] | None = None
    ) -> list[list[Generation]]:
        engine, all_ids = self.engine, [prompt.ids for prompt in prompts]

        def continue_some(batch: list[int]) -> list[list[Generation]]:
            ids = [all_ids[index] for index in batch]
            return decoding.generate(engine.stepper, ids, settings, seed, engine.encoder.eos, engine.detokenizer, on_ids=on_ids)

        return decoding.in_batches(all_ids, settings, continue_some)

    def _score(self, texts: Sequence[np.ndarray], top: int) -> list[_Scored]:
        """ln P of every token, and of the `top` most likely ones there; read token by token, as in generation."""
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        scored, state = [_Scored([], []) for _ in texts], self.engine.states(len(texts))
        with torch.inference_mode():
            for time in range(max(map(len, texts)) - 1):
                running = [index for index in order if len(texts[index]) > time + 1]
                ids, targets = (torch.tensor([int(texts[index][at]) for index in running]) for at in (time, time + 1))
                before = tuple(part[:, : len(running)] for part in state)
                rows, state = self.engine.stepper.step(ids.to(self.engine.device), before)
                of_targets = rows.gather(1, targets.to(rows.device)[:, None]).squeeze(1).tolist()
                values, found = rows.topk(min(top, rows.shape[1]))
                for index, log_prob, likely, names in zip(running, of_targets, values.tolist(), found.tolist(), strict=True):
                    scored[index].log_probs.append(log_prob)
                    scored[index].top.append(dict(zip(map(self.engine.encoder.token, names), likely, strict=True)))
        return scored

    def _choice(self, request: CompletionRequest, index: int, prompt: _Prompt, one: Generation, scored: _Scored) -> dict[str, Any]:
        text, before = self._text(request, prompt, one), ""
        if request.echo:
            before = prompt.text if prompt.text is not None else self.engine.encoder.decode(prompt.ids[1:])
        log_probs = None
        if request.logprobs is not None:
            first = 0 if request.echo else len(prompt.ids) - 1
            ids = np.concatenate([prompt.ids[1:], one.ids])[first:]
            tokens = [self.engine.encoder.token(int(id)) for id in ids]
            offsets = np.cumsum([0, *map(len, tokens[:-1])]).tolist() if tokens else []
            log_probs = {
                "tokens": tokens, "token_logprobs": scored.log_probs[first:],
                "top_logprobs": scored.top[first:] if request.logprobs else None, "text_offset": offsets,
            }  # fmt: skip
        return {"text": before + text, "index": index, "logprobs": log_probs, "finish_reason": _finish_reason(one)}

    def _text(self, request: CompletionRequest, prompt: _Prompt, one: Generation) -> str:
        """What a generation adds to its prompt, without the stop string that ended it."""
        text = self._decode(prompt, one.ids)
        found = [text.index(stop) for stop in request.stops if stop in text]
        return text[: min(found)] if found else text

    def _decode(self, prompt: _Prompt, ids: np.ndarray) -> str:
        return self.engine.detokenizer.decode(prompt.ids, ids)

    def _envelope(self) -> dict[str, Any]:
        return {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()), "model": self.name}


def _finish_reason(one: Generation) -> str:
    return "stop" if one.finished else "length"


def _event(values: dict[str, Any]) -> str:
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n"
