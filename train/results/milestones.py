"""Models at word counts of a training, as learning curves of models of child language need them (BabyLM): `run.dir`/train/milestones/10M is
the model after 10 million words.

Words are those of the training text, counted again in every epoch; within an epoch, those of a token are the mean of the training text.
"""

import logging
from collections.abc import Mapping, Sequence

from packlm.config import Config
from packlm.model import folder as model_folder
from packlm.model.language_model import LanguageModel

from ..batches.mixture import DatasetMixture
from ..optim.averaging import Average
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


def write_passed(
    config: Config, mixture: DatasetMixture, tokenizer: Mapping[str, str], model: LanguageModel, average: Average, state: TrainState,
    tokens: int,
) -> None:  # fmt: skip
    """Writes the model folders of the milestones that the last update, of so many tokens, has reached; their weights were not validated."""
    for words in passed(config.train.milestones, mixture, state.tokens - tokens, state.tokens):
        folder = config.run.dir / "train" / "milestones" / folder_name(words)
        with average.in_use():
            model_folder.save(folder, model_folder.weights_of(model), model_about(config, mixture, state, None), config.generate, tokenizer)
        log.info("%s words: %s", f"{words:,}", folder)
