"""The command `average`: a model whose weights are the mean of those of several checkpoints of a training.

The last ones, as is usual in speech recognition, or those that a greedy soup selects (Wortsman et al. 2022, recipe 1): from the best
checkpoint on, in the order of their validation losses, each is added if the mean of all so far gets no worse on the validation split.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.evaluation.evaluate import Result
from packlm.model import folder as model_folder
from packlm.model.language_model import build

from .. import checkpoint, record, setup
from ..batches.mixture import open_mixture
from ..state import ValidationResult
from .export import model_about, weights_to_export

log = logging.getLogger("packlm")

Weights = dict[str, Tensor]


def run(config: Config, manifest: dataset.Manifest, out: Path, last: int | None) -> None:
    """Averages checkpoints of the training in `run.dir`, and writes the model folder `out`.

    Args:
        last: number of last checkpoints to average; None: a greedy soup of all.

    Raises:
        RequestError: there is no such training, it has fewer checkpoints, or there is no validation split to choose by.
    """
    inputs, folder = record.inputs_of(config, manifest), config.run.dir / "train" / "checkpoints"
    if (changes := record.differences(config.run.dir, inputs)) and not record.other_length(config.run.dir, inputs):
        raise RequestError(f"{folder}: checkpoints of another training: {'; '.join(changes)}")
    steps = [step for step in checkpoint.steps(folder) if step and _is_intact(folder, step)]
    if len(steps) < max(2, last or 2):
        wanted = f"{last} checkpoints to average" if last else "several checkpoints to choose from"
        raise RequestError(f"{folder}: {len(steps)} and not {wanted}; train with --train.keep {max(5, last or 5)} to keep more of them")
    validation = setup.open_validation(config, manifest)
    if validation is None and last is None:
        raise RequestError(f"{config.dataset.dir}: no validation split to choose checkpoints by; give --last")
    model = build(config.model, manifest.vocab_size, config.run.seed, config.train.layout, config.train.logits_mb << 20).eval()

    def measure(weights: Weights) -> Result:
        assert validation is not None
        model_folder.restore_weights(model.to(next(iter(weights.values())).dtype), weights, folder)
        return validation.measure(model, Ranks(0, 1, torch.device("cpu")), 1, lambda: False)

    chosen = steps[-last:] if last else _greedy(folder, steps, measure)
    weights, state = mean(folder, chosen), checkpoint.load(folder, chosen[-1])[1]
    result = measure(weights) if validation is not None else None
    best = ValidationResult(loss=result.loss, perplexity=result.perplexity, tokens=result.tokens, step=state.step) if result else None
    tokenizer = dataset.read_files(config.dataset.dir, manifest, model_folder.TOKENIZER_FILES)
    model_folder.save(out, weights, model_about(config, open_mixture(config, manifest), state, best), config.generate, tokenizer)
    measured = f": validation perplexity {result.perplexity:.2f}" if result else ""
    print(f"mean of steps {', '.join(f'{step:,}' for step in chosen)}{measured}")
    log.info("%s: the averaged model", out)


def mean(folder: Path, steps: Sequence[int]) -> Weights:
    """The mean weights of checkpoints, summed in float64 in this order; one checkpoint in memory at a time."""
    totals: Weights = {}
    for step in steps:
        weights = weights_to_export(checkpoint.load(folder, step)[0])
        for name, weight in weights.items():
            totals[name] = totals.get(name, 0) + weight.double()
    return {name: (total / len(steps)).to(weights[name].dtype) for name, total in totals.items()}


def _is_intact(folder: Path, step: int) -> bool:
    """Whether a checkpoint can be used; a warning says why not."""
    damage = checkpoint.find_damage(folder, step)
    if damage:
        log.warning("%s; it is left out", damage)
    return damage is None


def _greedy(folder: Path, steps: Sequence[int], measure: Callable[[Weights], Result]) -> list[int]:
    """The steps of a greedy soup, ascending."""
    losses = {}
    for step in steps:
        result = measure(mean(folder, [step]))
        losses[step] = result.loss
        log.info("step %s: validation perplexity %.2f", f"{step:,}", result.perplexity)
    first, *others = sorted(steps, key=lambda step: losses[step])
    chosen, best = [first], losses[first]
    for step in others:
        result = measure(mean(folder, sorted([*chosen, step])))
        kept = result.loss <= best
        log.info("with step %s: %.2f, %s", f"{step:,}", result.perplexity, "added" if kept else "left out")
        if kept:
            chosen, best = sorted([*chosen, step]), result.loss
    return chosen
