"""The end of a training: exports the best weights as a model folder and writes the summary."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.model import folder as model_folder

from .. import checkpoint
from ..batches.mixture import DatasetMixture
from ..progress.progress import duration
from ..state import TrainState, ValidationResult

log = logging.getLogger("packlm")


def export(config: Config, mixture: DatasetMixture, tokenizer: Mapping[str, str], state: TrainState) -> None:
    """Rank 0: writes the model folder from the best checkpoint and the files of the tokenizer, then `summary.json`."""
    step, weights, best = best_weights(config.run.dir / "train" / "checkpoints", state)
    folder = config.run.dir / "model"
    model_folder.save(folder, weights, model_about(config, mixture, state, best), config.generate, tokenizer)
    files.write_json(config.run.dir / "train" / "summary.json", _summary(mixture, state, best))
    result = f", best validation perplexity {best.perplexity:.2f} at step {step:,}" if best else ""
    log.info("trained for %s steps, %s%s: %s", f"{state.step:,}", duration(state.seconds), result, folder)


def model_about(config: Config, mixture: DatasetMixture, state: TrainState, best: ValidationResult | None) -> dict[str, Any]:
    """The entries of a model's `config.json` (`packlm.model.info`); `best`: the validation of its weights."""
    manifest = mixture.manifest
    counts = ("documents", "sentences", "tokens", "words", "unknown")
    data = {name: {count: getattr(split, count) for count in counts} for name, split in manifest.splits.items()}
    return {
        "name": config.run.name, "model": config.model.model_dump(mode="json"), "vocab_size": manifest.vocab_size,
        "text": manifest.settings["corpus"], "segments": config.train.segments, "reset": config.train.reset,
        "lossless": manifest.lossless,
        "dataset": manifest.digests | {f"mix {part.folder}": part.manifest.digests["content"] for part in mixture.parts[1:]},
        "numbers": _summary(mixture, state, best) | {"optimizer": config.train.optimizer, "lr": config.train.lr, "data": data},
    }  # fmt: skip


def _summary(mixture: DatasetMixture, state: TrainState, best: ValidationResult | None) -> dict[str, Any]:
    validation = state.validation.model_copy(update={"best": best})
    return {
        "steps": state.step, "skipped_steps": state.skipped, "epochs": state.tokens / mixture.tokens,
        "tokens": state.tokens, "seconds": state.seconds, "validation": validation.model_dump(exclude_none=True),
    }  # fmt: skip


def best_weights(folder: Path, state: TrainState) -> tuple[int, dict[str, Tensor], ValidationResult | None]:
    """Step, weights and validation of the best checkpoint, or with a warning of the latest intact one if the best is damaged.

    Raises:
        PacklmError: every checkpoint is damaged.
    """
    for step in [state.step if state.best_step is None else state.best_step, *reversed(checkpoint.steps(folder))]:
        if damage := checkpoint.find_damage(folder, step):
            log.warning("%s; exporting the weights of another checkpoint", damage)
            continue
        tensors, saved = checkpoint.load(folder, step)
        weights = weights_to_export(tensors)
        results = saved.validation.best, saved.validation.last
        return step, weights, next((result for result in results if result and result.step == step), None)
    raise PacklmError(f"{folder}: no usable checkpoint to export; start over with --rebuild")


def weights_to_export(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a checkpoint that were validated: averaged ones if the training averages."""
    return checkpoint.under_prefix("average", tensors) or checkpoint.under_prefix("model", tensors)
