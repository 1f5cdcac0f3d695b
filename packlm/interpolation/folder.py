"""A model folder whose network is interpolated: beside the files of the network it has

interpolation.json        networks and components, their weights, and what they were tuned on
networks/2/, 3/, ...      further networks, each a model folder
ngrams.safetensors        for each length of n-grams `keys`, `probabilities` and `backoffs` (`backoff.NGrams`)
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load as deserialize
from safetensors.numpy import save as serialize

from packlm.base import files, sealed_json, verified_files
from packlm.base.errors import PacklmError, RequestError
from packlm.interpolation.backoff import BackoffModel, NGrams
from packlm.interpolation.cache import CacheComponent
from packlm.interpolation.component import Component
from packlm.interpolation.model import InterpolatedModel
from packlm.interpolation.ngrams import NGramComponent
from packlm.model import folder as model_folder
from packlm.model import info
from packlm.model.language_model import LanguageModel

NAME = "interpolation.json"
NGRAMS = "ngrams.safetensors"
NETWORKS = "networks"
REMEDY = "make the folder again with `packlm interpolate`"


class NetworkSettings(BaseModel):
    """A further network, in a folder beside."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: float = Field(ge=0, lt=1)
    sha256: str
    """Of its `model.safetensors`."""


class NGramSettings(BaseModel):
    """N-grams, in a file beside."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: float = Field(ge=0, lt=1)
    order: int = Field(ge=1)
    sha256: str
    """Of `ngrams.safetensors`."""


class CacheSettings(BaseModel):
    """A neural cache."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: float = Field(ge=0, lt=1)
    size: int = Field(ge=1)
    theta: float = Field(ge=0)


class InterpolationSettings(BaseModel):
    """The content of `interpolation.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    networks: list[NetworkSettings] = []
    """Those of `networks/2`, `networks/3`, ..."""
    ngrams: NGramSettings | None = None
    cache: CacheSettings | None = None
    tuned_on: dict[str, Any]
    """Dataset, split, tokens and perplexities."""


@dataclass(frozen=True)
class WeightedNetwork:
    """A further network for a folder."""

    folder: Path
    weight: float


@dataclass(frozen=True)
class WeightedNGrams:
    """N-grams for a folder."""

    model: BackoffModel
    weight: float


def save(
    source: Path, folder: Path, networks: Sequence[WeightedNetwork], ngrams: WeightedNGrams | None, cache: CacheSettings | None,
    tuned_on: dict[str, Any], description: str,
) -> None:  # fmt: skip
    """Writes a copy of model folder `source` with an interpolation, atomically.

    Args:
        description: a paragraph for the model card.
    """
    work = files.temporary_of(folder)
    shutil.rmtree(work, ignore_errors=True)
    with files.naming(work):
        work.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, work)
        for number, network in enumerate(networks):
            shutil.copytree(network.folder, _network_folder(work, number))
    settings = None
    if ngrams is not None:
        parts = {f"{length}.{name}": array for length, part in enumerate(ngrams.model.orders, 1) for name, array in _arrays(part).items()}
        with files.atomic(work / NGRAMS) as stream:
            stream.write(serialize(parts))
        settings = NGramSettings(weight=ngrams.weight, order=ngrams.model.order, sha256=files.sha256(work / NGRAMS))
    others = [NetworkSettings(weight=network.weight, sha256=info.read(network.folder).weights) for network in networks]
    whole = InterpolationSettings(networks=others, ngrams=settings, cache=cache, tuned_on=tuned_on)
    sealed_json.write(work / NAME, whole.model_dump(mode="json"))
    card = (work / "README.md").read_text(encoding="utf-8") if (work / "README.md").is_file() else ""
    files.write_text(work / "README.md", f"{card}\n## Interpolation\n\n{description}\n")
    files.recover_folder(folder)
    files.replace_folder(work, folder)


def is_interpolated(folder: Path) -> bool:
    """Whether a model folder has an interpolation."""
    return (Path(folder) / NAME).exists()


def apply(
    folder: Path, network: LanguageModel, eos: int, prepare: Callable[[LanguageModel], LanguageModel]
) -> LanguageModel:  # fmt: skip
    """The network of a model folder with the networks and components that the folder has, if any.

    Args:
        prepare: what is done with a further network once it is read, as moving it to a device.

    Raises:
        RequestError: a network or the n-grams are of another vocabulary.
        PacklmError: a file is missing or damaged.
    """
    folder = Path(folder)
    if not is_interpolated(folder):
        return network
    settings = sealed_json.read(folder / NAME, InterpolationSettings, REMEDY)
    networks, components, weights = [network], list[Component](), list[float]()
    for number, each in enumerate(settings.networks):
        networks.append(prepare(_read_network(_network_folder(folder, number), each, network.vocab_size)))
        weights.append(each.weight)
    if settings.ngrams is not None:
        components.append(NGramComponent(_read_ngrams(folder, settings.ngrams, network.vocab_size), eos))
        weights.append(settings.ngrams.weight)
    if (cache := settings.cache) is not None:
        components.append(CacheComponent(cache.size, cache.theta, network.vocab_size))
        weights.append(cache.weight)
    if sum(weights) >= 1:
        raise PacklmError(f"{folder / NAME}: the weights leave nothing to the network; {REMEDY}")
    return InterpolatedModel(networks, components, [1 - sum(weights), *weights])


def _network_folder(folder: Path, number: int) -> Path:
    """Of the further network `number`, from 0 on; the second network is the first of these."""
    return folder / NETWORKS / str(number + 2)


def _read_network(folder: Path, settings: NetworkSettings, vocab_size: int) -> LanguageModel:
    network, about = model_folder.load(folder)
    if about.weights != settings.sha256:
        raise PacklmError(f"{folder}: another network than the one that the weights were tuned for; {REMEDY}")
    if network.vocab_size != vocab_size:
        raise RequestError(f"{folder}: a network of {network.vocab_size:,} ids, and the first one has {vocab_size:,}; {REMEDY}")
    return network


def _arrays(part: NGrams) -> dict[str, np.ndarray]:
    return {"keys": part.keys, "probabilities": part.probabilities.astype(np.float32), "backoffs": part.backoffs.astype(np.float32)}


def _read_ngrams(folder: Path, settings: NGramSettings, vocab_size: int) -> BackoffModel:
    path = folder / NGRAMS
    try:
        arrays = deserialize(verified_files.read(path, settings.sha256))
        orders = [
            NGrams(arrays[f"{length}.keys"], arrays[f"{length}.probabilities"], arrays[f"{length}.backoffs"])
            for length in range(1, settings.order + 1)
        ]
    except (SafetensorError, KeyError) as error:
        raise PacklmError(f"{path}: not the n-grams of an interpolated model ({error}); {REMEDY}") from None
    if len(orders[0].keys) != vocab_size + 1:
        raise RequestError(f"{path}: n-grams of {len(orders[0].keys) - 1:,} ids, and the network has {vocab_size:,}; {REMEDY}")
    return BackoffModel(orders, vocab_size)
