"""The code of a model in MLflow's registry: `load_model("models:/NAME@champion").predict(rows, params)`, or the same from a server.

A row has a text in the column `prompt`. `params`: `task` is "generate" (continuations, the most likely first) or "score" (the text taken
as one sentence: log P(E), its tokens and their log P, in nats), `seed`, and the settings of `generate`. Answers one record per row.
`model_config`: `precision`, as of `packlm.load`.
"""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from packlm import tracking
from packlm.base.errors import RequestError

TASKS = ("generate", "score")
MAX_PROMPT, MAX_TEXT, MAX_TOKENS = 30_000, 1_000_000, 1_000_000
"""Most characters of a prompt and of all texts to be scored, and most tokens (prompts x samples x max_tokens) of one request: what takes
longer than a server's time limit is refused at once."""


class ServedModel:
    """A model, and the requests that wait for it."""

    def __init__(self, engine: Any):
        from packlm.generation.request_batches import RequestBatches  # with torch, which takes seconds: logging this file needs none

        self.engine = engine
        self._batches = RequestBatches(self._continuations)

    def generate(self, prompts: list[str], seed: int, settings: dict[str, Any]) -> list[Any]:
        """`Engine.generate`, together with the requests of other threads for the same seed and settings."""
        return self._batches.answer(json.dumps([seed, settings], sort_keys=True), prompts)

    def _continuations(self, key: Hashable, prompts: list[str]) -> list[Any]:
        seed, settings = json.loads(str(key))
        continuations: list[Any] = self.engine.generate(prompts, seed=seed, **settings)
        return continuations


def load(folder: Path, options: dict[str, Any]) -> ServedModel:
    """Loads the model folder that was logged."""
    from packlm.engine import Engine

    return ServedModel(Engine.load(folder, **options))


def predict(model: ServedModel, rows: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers the rows of a DataFrame with a column `prompt`.

    Raises:
        RequestError: a prompt is not a text, there is no such task or setting, or the request is too large.
    """
    prompts, settings = list(rows["prompt"]), dict(params)
    task, seed = settings.pop("task", "generate"), settings.pop("seed", 1)
    if task not in TASKS:
        raise RequestError(f"task: {task!r} is none of {', '.join(TASKS)}")
    lengths = [len(prompt) for prompt in prompts if isinstance(prompt, str)]  # the engine refuses what is no text
    if task == "score":
        if sum(lengths) > MAX_TEXT:
            raise RequestError(f"{sum(lengths):,} characters; at most {MAX_TEXT:,} are scored in one request")
        return [
            {"prompt": prompt, "log_prob": score.log_prob, "tokens": score.tokens, "log_probs": score.log_probs.tolist()}
            for prompt, score in zip(prompts, model.engine.score(prompts), strict=True)
        ]
    if max(lengths, default=0) > MAX_PROMPT:
        raise RequestError(f"prompts.{lengths.index(max(lengths))}: {max(lengths):,} characters; at most {MAX_PROMPT:,} are read")
    if (tokens := _most_tokens(model.engine, len(prompts), seed, settings)) > MAX_TOKENS:
        raise RequestError(
            f"{tokens:,} tokens (prompts x samples or beams x max_tokens); at most {MAX_TOKENS:,} are generated for one request"
        )
    continued = model.generate(prompts, seed, settings)
    return [{"prompt": prompt, "generations": [vars(item) for item in items]} for prompt, items in zip(prompts, continued, strict=True)]


def _most_tokens(engine: Any, prompts: int, seed: Any, settings: dict[str, Any]) -> int:
    """The most tokens that are generated for some prompts with these settings, which are validated first."""
    from packlm.generation import decoding

    resolved, _ = decoding.resolve(engine.generation_config | settings, seed, engine.info.vocab_size)
    rows = max(resolved.samples, resolved.beams) if resolved.strategy == "beam" else resolved.samples
    return prompts * rows * resolved.max_tokens


tracking.declare_model(load, predict)
