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


def load(folder: Path, options: dict[str, Any]) -> Any:
    """Loads the model folder that was logged."""
    from packlm.engine import Engine  # imports torch, which takes seconds, and logging this file does not need it

    return Engine.load(folder, **options)


def predict(engine: Any, rows: Any, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers the rows of a DataFrame with a column `prompt`.

    Raises:
        RequestError: a prompt is not a text, or there is no such task or setting.
    """
    prompts, settings = list(rows["prompt"]), dict(params)
    task, seed = settings.pop("task", "generate"), settings.pop("seed", 1)
    if task == "score":
        return [
            {"prompt": prompt, "log_prob": score.log_prob, "tokens": score.tokens, "log_probs": score.log_probs.tolist()}
            for prompt, score in zip(prompts, engine.score(prompts), strict=True)
        ]
    if task != "generate":
        raise RequestError(f"task: {task!r} is none of {', '.join(TASKS)}")
    continued = engine.generate(prompts, seed=seed, **settings)
    return [{"prompt": prompt, "generations": [vars(item) for item in items]} for prompt, items in zip(prompts, continued, strict=True)]


tracking.declare_model(load, predict)
