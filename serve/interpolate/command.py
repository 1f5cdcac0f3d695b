"""The command `interpolate`: a network with others, n-grams and a cache, as a new model folder, with weights tuned on held-out text."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from packlm import dataset, tracking
from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.config import Config
from packlm.dataset.views import Sentences, Stream, concatenated_ranges
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation.evaluate import LossScorer, evaluate, resolve_context
from packlm.interpolation import arpa, folder, weights
from packlm.interpolation.backoff import BackoffModel
from packlm.interpolation.cache import CacheComponent
from packlm.interpolation.component import Component
from packlm.interpolation.kneser_ney import of_training_split
from packlm.interpolation.model import InterpolatedModel
from packlm.interpolation.ngrams import NGramComponent
from packlm.model import folder as model_folder
from packlm.model.finite import perplexity
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import State

log = logging.getLogger("packlm")

THETAS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Flatness of the cache that is chosen from."""


@dataclass(frozen=True)
class InterpolateOptions:
    """The options of `interpolate` that are not settings."""

    data: Path | None
    out: Path
    networks: tuple[str, ...]
    """Further networks, as folders or registry addresses."""
    ngrams: Path | None
    """An ARPA file; by default n-grams are counted in the training split."""
    order: int
    """Of those counted; 0: no n-grams."""


def run(address: str | Path, options: InterpolateOptions, config: Config) -> None:
    """Tunes the weights, writes the model folder and prints a table of perplexities.

    Args:
        address: the first network, whose text rules and hidden states the mixture has.

    Raises:
        RequestError: there is no such model, dataset or split, or they do not fit.
    """
    source, *further = [_folder(each, config) for each in (address, *options.networks)]
    engine, data, size = Engine.load(source, store=config.tracking), options.data or config.dataset.dir, config.evaluate.cache
    networks = [engine.model, *(_further_network(other, engine) for other in further)]
    manifest, split = dataset.read_manifest(data), config.evaluate.split
    manifest.split(split)
    if manifest.digests["tokenizer"] != engine.info.tokenizer:
        raise RequestError(f"{data}: its ids are of another tokenizer than the model's; build a dataset with the model's tokenizer.json")
    context = resolve_context(config.evaluate.context, engine.info.context)
    if size and context == "sentences":
        raise RequestError("--cache: the model reads sentences by themselves, and a cache learns from the preceding text; leave it out")
    ngrams = _ngrams(options, data, manifest, engine)
    fixed: list[Component] = [] if ngrams is None else [NGramComponent(ngrams, engine.encoder.eos)]
    caches = [CacheComponent(size, theta, engine.info.vocab_size) for theta in THETAS] if size else []
    sentences, stream = Sentences.open(data, manifest, split), Stream.open(data, manifest, split)
    components = [*fixed, *caches]
    parts = len(networks) + len(components)  # with equal weights: they are not tuned yet
    recorder = _TargetProbabilities(InterpolatedModel(networks, components, [1 / parts] * parts), sentences.tokens)
    log.info("reading %s: %s tokens", split, f"{sentences.tokens:,}")
    evaluate(recorder, sentences, stream, context, 1, config.evaluate.batch_tokens, Ranks(0, 1, engine.device))

    mixture = min((_tuned(recorder, [*fixed, *each]) for each in ([[cache] for cache in caches] or [[]])), key=lambda tuned: tuned.loss)
    cache = next((component for component in mixture.components if isinstance(component, CacheComponent)), None)
    of_networks, of_components = mixture.weights[: len(networks)], mixture.weights[len(networks) :]
    network_loss = mixture.losses[0]
    assert network_loss is not None  # `evaluate` refuses infinite losses
    numbers = {
        "dataset": manifest.digests["content"], "split": split, "tokens": sentences.tokens, "context": context,
        "perplexity": perplexity(mixture.loss), "perplexity_across_halves": perplexity(mixture.loss_across_halves),
        "perplexity_of_network": perplexity(network_loss),
    }  # fmt: skip
    folder.save(
        source,
        options.out,
        [folder.WeightedNetwork(other, weight) for other, weight in zip(further, of_networks[1:], strict=True)],
        None if ngrams is None else folder.WeightedNGrams(ngrams, of_components[0]),
        None if cache is None else folder.CacheSettings(weight=of_components[-1], size=cache.size, theta=cache.theta),
        numbers,
        f"The network is interpolated with {mixture.description}. The weights were tuned on {split} ({sentences.tokens:,} tokens): "
        f"perplexity {numbers['perplexity_of_network']:.2f} of the network, {numbers['perplexity']:.2f} together, "
        f"{numbers['perplexity_across_halves']:.2f} with each half by the weights of the other.",
    )
    print(mixture.table)
    log.info("%s: the model with its interpolation, for every command that takes --model", options.out)


def _folder(address: str | Path, config: Config) -> Path:
    """The folder of a model that is to be a network of the mixture."""
    source = tracking.folder_of(address, config.tracking)
    if folder.is_interpolated(source):
        raise RequestError(f"{source}: it is interpolated already; give the model folder it was made from")
    return source


def _further_network(source: Path, engine: Engine) -> LanguageModel:
    """The network of a folder, if it predicts the same ids in the same context as the engine's."""
    network, info = model_folder.load(source)
    if info.tokenizer != engine.info.tokenizer or info.vocab_size != engine.info.vocab_size:
        raise RequestError(f"--network {source}: its ids are of another tokenizer than the model's; networks of one dataset can be mixed")
    if info.context != engine.info.context:
        raise RequestError(
            f"--network {source}: it was trained with the context {info.context}, and the model with {engine.info.context}; "
            "give one that was trained on the same segments"
        )
    return network.to(engine.device)


@dataclass(frozen=True)
class _Mixture:
    """Networks and components with tuned weights."""

    names: list[str]
    components: list[Component]
    weights: list[float]
    """Of each network, then of each component."""
    losses: list[float | None]
    """Mean loss of each by itself, in nats; None if it gives some target no probability."""
    loss: float
    """Mean loss of the mixture."""
    loss_across_halves: float
    """The same, with each half of the targets by the weights that were tuned on the other."""

    @property
    def description(self) -> str:
        """What the first network is mixed with."""
        return " and ".join(f"{name} (weight {weight:.3f})" for name, weight in zip(self.names[1:], self.weights[1:], strict=True))

    @property
    def table(self) -> str:
        lines = [
            f"{name:<44}{'' if loss is None else f'{perplexity(loss):.2f}':>10}   weight {weight:.3f}"
            for name, loss, weight in zip(self.names, self.losses, self.weights, strict=True)
        ]
        mixtures = {"interpolated": self.loss, "each half with the weights of the other": self.loss_across_halves}
        return "\n".join([*lines, *(f"{name:<44}{perplexity(loss):>10.2f}" for name, loss in mixtures.items())])


def _tuned(recorder: "_TargetProbabilities", components: list[Component]) -> _Mixture:
    """The networks and some of the components that were recorded, with the best weights."""
    networks, everything = len(recorder.model.networks), recorder.model.components
    columns = [*range(networks), *(networks + everything.index(component) for component in components)]
    probabilities, known = recorder.probabilities[:, columns], recorder.known[:, columns]
    shares = weights.tune(probabilities, known)
    losses = [float(-np.log(column).mean()) if column.all() else None for column in probabilities.T]
    loss = float(weights.losses(probabilities, known, shares).mean())
    names = [recorder.model.names[column] for column in columns]
    return _Mixture(names, components, shares.tolist(), losses, loss, weights.cross_validated_loss(probabilities, known))


class _TargetProbabilities(LossScorer):
    """Keeps what each network and component gives every target of a split."""

    max_window: int | None = None

    def __init__(self, model: InterpolatedModel, tokens: int):
        self.model, columns = model, len(model.weights)
        self.probabilities, self.known = np.zeros((tokens, columns)), np.zeros((tokens, columns), bool)

    def zero_state(self, segments: int) -> State:
        return self.model.zero_state(segments)

    def losses(self, segments: Segments, state: State | None) -> tuple[Tensor, State | None]:
        probabilities, known, final = self.model.probabilities(segments.batch(self.model.embedding.weight.device), state)
        offsets = concatenated_ranges(segments.keys, segments.keys + segments.lengths)
        self.probabilities[offsets], self.known[offsets] = probabilities.cpu().numpy(), known.cpu().numpy()
        return -probabilities[:, 0].log(), final


def _ngrams(options: InterpolateOptions, data: Path, manifest: dataset.Manifest, engine: Engine) -> BackoffModel | None:
    if options.ngrams is not None:
        vocabulary = engine.encoder.vocabulary
        padding = [f"<unused {id}>" for id in range(len(vocabulary), engine.info.vocab_size)]
        return arpa.read(options.ngrams, [*vocabulary, *padding], engine.encoder.eos)
    if not options.order:
        return None
    log.info("counting %d-grams in the training split", options.order)
    return of_training_split(data, manifest, engine.info.vocab_size, options.order)
