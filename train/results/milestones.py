"""Models at word counts of a training, as learning curves of models of child language need them (BabyLM): `run.dir`/train/milestones/10M is
the model after 10 million words.

Words are those of the training text, counted again in every epoch; within an epoch, those of a token are the mean of the training text.
"""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from packlm import dataset
from packlm.config import Config
from packlm.model import folder as model_folder

from ..batches.mixture import DatasetMixture
from ..state import TrainState
from .export import model_about

log = logging.getLogger("packlm")


def passed(milestones: Sequence[int], mixture: DatasetMixture, before: int, after: int) -> list[int]:
    """The milestones that an update reaches which takes the tokens trained on from `before` to `after`."""
    return [words for words in milestones if before * mixture.words < words * mixture.tokens <= after * mixture.words]


def folder_name(words: int) -> str:
    """10M for ten million, 500k, 1500."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if words % size == 0:
            return f"{words // size}{unit}"
    return str(words)


def write(
    config: Config, manifest: dataset.Manifest, tokenizer: Mapping[str, str], weights: dict[str, Tensor], state: TrainState, words: int
) -> None:  # fmt: skip
    """Writes the model folder of a milestone; its weights were not validated."""
    folder = config.run.dir / "train" / "milestones" / folder_name(words)
    model_folder.save(folder, weights, model_about(config, manifest, state, None), config.generate, tokenizer)
    log.info("%s words: %s", f"{words:,}", folder)
