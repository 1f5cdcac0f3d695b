"""The end of a training: a model folder of the best weights, and the summary that says it is complete."""

import logging
from pathlib import Path

from torch import Tensor

from packlm import dataset
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.model import folder as model_folder

from . import checkpoint
from .progress.watch import duration
from .state import TrainState

log = logging.getLogger("packlm")


def finish(config: Config, manifest: dataset.Manifest, position: TrainState) -> None:
    """Rank 0: writes the model folder from the best checkpoint, then `summary.json`."""
    step, weights, measured = best_weights(config.run.dir / "train" / "checkpoints", position)
    others = {which: result for which, result in position.validation.items() if which != "best"}
    summary = {
        "steps": position.step, "skipped_steps": position.skipped, "epochs": position.tokens / manifest.split("train").tokens,
        "tokens": position.tokens, "seconds": position.seconds, "validation": others | ({"best": measured} if measured else {}),
    }  # fmt: skip
    counts = ("documents", "sentences", "tokens", "words", "unknown")
    data = {name: {count: getattr(split, count) for count in counts} for name, split in manifest.splits.items()}
    about = {
        "name": config.run.name, "model": config.model.model_dump(mode="json"), "vocab_size": manifest.vocab_size,
        "text": manifest.settings["corpus"], "segments": config.train.segments, "reset": config.train.reset,
        "lossless": manifest.lossless, "dataset": manifest.digests, "numbers": summary | {"data": data},
    }  # fmt: skip
    folder = config.run.dir / "model"
    model_folder.save(folder, weights, about, config.generate, config.dataset.dir)
    files.write_json(config.run.dir / "train" / "summary.json", summary)
    numbers = f", validation perplexity {measured['perplexity']:.2f} at step {step:,}" if measured else ""
    log.info("trained %s steps in %s%s: %s", f"{position.step:,}", duration(position.seconds), numbers, folder)


def best_weights(folder: Path, position: TrainState) -> tuple[int, dict[str, Tensor], dict[str, float] | None]:
    """The step, weights and validation of the best checkpoint; of the latest one that is whole, with a warning, if that is damaged."""
    for step in [position.best_step or position.step, *reversed(checkpoint.steps(folder))]:
        if complaint := checkpoint.damage(folder, step):
            log.warning("%s; the model folder gets the weights of another one", complaint)
            continue
        tensors, state = checkpoint.load_checkpoint(folder, step)
        weights = checkpoint.under_prefix("average", tensors) or checkpoint.under_prefix("model", tensors)
        results = (state["validation"].get(which) for which in ("best", "last"))
        return step, weights, next((result for result in results if result and result["step"] == step), None)
    raise PacklmError(f"{folder}: no checkpoint is whole, so there is nothing to make a model folder of; start over with --rebuild")
