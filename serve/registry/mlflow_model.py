"""The code of a model in MLflow's registry: `load_model("models:/NAME@champion").predict(rows, params)`, or the same from a server.

A row has a text in the column `prompt`. `params`: `task` is "generate" (continuations, the most likely first) or "score" (the text taken
as one sentence: log P(E), its tokens and their log P, in nats), `seed`, and the settings of `generate`. Answers one record per row.
`model_config`: `precision`, as of `packlm.load`.
"""

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

        self.engine, self.batches = engine, RequestBatches()


def load(folder: Path, options: dict[str, Any]) -> ServedModel:
    """Loads the model folder that was logged."""
    from packlm.engine import Engine

    return ServedModel(Engine.load(folder, **options))


def predict(model: ServedModel, rows: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers the rows of a DataFrame with a column `prompt`.

    Raises:
        RequestError: a prompt is not a text, there is no such task or setting, or the request is too large.
    """
    engine, prompts, settings = model.engine, list(rows["prompt"]), dict(params)
    task, seed = settings.pop("task", "generate"), settings.pop("seed", 1)
    if task not in TASKS:
        raise RequestError(f"task: {task!r} is none of {', '.join(TASKS)}")
    lengths = [len(prompt) for prompt in prompts if isinstance(prompt, str)]  # the engine refuses what is no text
    if task == "score":
        if sum(lengths) > MAX_TEXT:
            raise RequestError(f"{sum(lengths):,} characters; at most {MAX_TEXT:,} are scored in one request")
        return [
            {"prompt": prompt, "log_prob": score.log_prob, "tokens": score.tokens, "log_probs": score.log_probs.tolist()}
            for prompt, score in zip(prompts, engine.score(prompts), strict=True)
        ]
    if max(lengths, default=0) > MAX_PROMPT:
        raise RequestError(f"prompts.{lengths.index(max(lengths))}: {max(lengths):,} characters; at most {MAX_PROMPT:,} are read")
    from packlm.generation import decoding  # by now torch is imported

    resolved, seed = decoding.resolve(engine.generation_config | settings, seed, engine.info.vocab_size)
    if (tokens := len(prompts) * resolved.num_rows * resolved.max_tokens) > MAX_TOKENS:
        raise RequestError(
            f"{tokens:,} tokens (prompts x samples or beams x max_tokens); at most {MAX_TOKENS:,} are generated for one request"
        )
    key = (seed, resolved.model_dump_json())
    continued = model.batches.answer(key, prompts, lambda all_prompts: engine.generate(all_prompts, seed=seed, **settings))
    return [{"prompt": prompt, "generations": [vars(item) for item in items]} for prompt, items in zip(prompts, continued, strict=True)]


tracking.declare_model(load, predict)
