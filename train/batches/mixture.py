"""Mixtures of datasets (`train.mix`): each has its share of every global batch, so the mixture is the same at every step.

A dataset that has been read to its end begins anew, with the next epoch's order, however far the others are. An epoch of a mixture has as
many targets as all of its datasets together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.config import Config

from .plan import StatelessPlan
from .row_plan import RowPlan
from .sentence_plan import SentencePlan


class MixturePart(NamedTuple):
    """A dataset of a mixture."""

    folder: Path
    manifest: dataset.Manifest
    share: float
    """Of the targets of every global batch."""

    @property
    def split(self) -> dataset.Split:
        return self.manifest.split("train")


class DatasetMixture(NamedTuple):
    """What a training reads: `dataset.dir`, and with `train.mix` other datasets."""

    parts: list[MixturePart]
    """That of `dataset.dir` first."""

    @property
    def manifest(self) -> dataset.Manifest:
        """That of `dataset.dir`."""
        return self.parts[0].manifest

    @property
    def tokens(self) -> int:
        """Targets of an epoch."""
        return sum(part.split.tokens for part in self.parts)

    @property
    def words(self) -> int:
        """Words of an epoch."""
        return round(sum(part.share * part.split.words / part.split.tokens for part in self.parts) * self.tokens)


def open_mixture(config: Config, manifest: dataset.Manifest) -> DatasetMixture:
    """The datasets of a training; `manifest` is that of `dataset.dir`.

    Raises:
        RequestError: there is no such dataset, it is there twice, or it has another tokenizer or length of rows.
    """
    mix, parts = config.train.mix, [MixturePart(config.dataset.dir, manifest, 1 - sum(config.train.mix.values()))]
    for name, share in mix.items():
        other = dataset.read_manifest(Path(name))
        if other.digests["content"] in [part.manifest.digests["content"] for part in parts]:
            raise RequestError(f"train.mix: {name} is a dataset that is in the mixture already; leave it out")
        if other.digests["tokenizer"] != manifest.digests["tokenizer"]:
            raise RequestError(
                f"train.mix: {name} has another tokenizer than {config.dataset.dir}; build it with --tokenizer.kind file "
                f"--tokenizer.file {config.dataset.dir}/tokenizer.json"
            )
        if config.train.segments == "rows" and other.length != manifest.length:
            raise RequestError(
                f"train.mix: {name} has rows of {other.length} tokens and {config.dataset.dir} of {manifest.length}; build it with "
                f"--dataset.length {manifest.length}"
            )
        parts.append(MixturePart(Path(name), other, share))
    return DatasetMixture(parts)


def divided(total: int, shares: Sequence[float], setting: str) -> list[int]:
    """Whole numbers that sum to `total`, in these shares as nearly as possible, each at least 1.

    Raises:
        RequestError: `total`, which comes from a setting, is too small for that.
    """
    if total < len(shares):
        raise RequestError(f"{setting}: too small for {len(shares)} datasets (train.mix); raise it")
    exact = np.array(shares) * total
    numbers = np.maximum(1, np.floor(exact)).astype(np.int64)
    while (missing := total - int(numbers.sum())) != 0:
        step = 1 if missing > 0 else -1
        candidates = np.where((numbers > 1) | (step > 0), step * (exact - numbers), -np.inf)
        numbers[candidates.argmax()] += step
    return [int(number) for number in numbers]


class MixturePlan(StatelessPlan):
    """Global batches that consist of one of each dataset's own batches of sentences or rows."""

    def __init__(self, plans: Sequence[SentencePlan | RowPlan]):
        """`plans`: of each dataset, for its share of `train.global_batch_tokens`."""
        self.plans, self.unit = plans, plans[0].unit
        self._first_keys = np.cumsum([0, *(plan.keys for plan in plans)])
        self._steps = max(1, round(sum(plan.targets for plan in plans) / sum(plan.targets / plan.steps(0) for plan in plans)))

    def steps(self, epoch: int) -> int:
        return self._steps

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        number, shares = epoch * self._steps + step, []
        for plan, first_key in zip(self.plans, self._first_keys, strict=False):
            own = plan.share(*divmod(number, plan.steps(0)), part, parts)
            shares.append((own, own.keys + first_key))
        inputs, targets, lengths = (np.concatenate([getattr(own, name) for own, _ in shares]) for name in ("inputs", "targets", "lengths"))
        keys = np.concatenate([keys for _, keys in shares])
        tokens, segments = sum(own.global_tokens for own, _ in shares), sum(own.global_segments for own, _ in shares)
        return Segments(inputs, targets, lengths, keys, tokens, segments)
