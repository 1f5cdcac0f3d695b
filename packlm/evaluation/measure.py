"""Evaluates a model on a split of a dataset, or on text files that are read by the model's own rules. Both give the same numbers.

"All ranks" marks functions that every process of a distributed run has to call.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.config import Evaluate
from packlm.corpus import documents
from packlm.dataset import Manifest
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.evaluation.advice import SAMPLE_TOKENS, advice
from packlm.evaluation.baselines import Baselines, baselines, context_ends, interpolate
from packlm.evaluation.breakdown import breakdown
from packlm.evaluation.details import DetailedScorer, by_document, by_sentence_length, by_token
from packlm.evaluation.dynamic_evaluation import DynamicScorer, mean_squares
from packlm.evaluation.evaluate import ModelScorer, Result, Scorer, evaluate, first_targets, resolve_context
from packlm.evaluation.reports import TextCounts, report
from packlm.interpolation.cache import CacheComponent
from packlm.interpolation.kneser_ney import MAX_TOKENS
from packlm.interpolation.model import InterpolatedModel, interpolated
from packlm.model.finite import named, perplexity
from packlm.model.info import ModelInfo
from packlm.model.language_model import LanguageModel
from packlm.model.quantized import QuantizedModel
from packlm.text.document_block import DocumentBlock
from packlm.text.document_encoding import encode_documents
from packlm.text.encoder import Encoder

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class _MeasuredText:
    """A text in both views, and what is known of it."""

    sentences: Sentences
    stream: Stream
    encoder: Encoder
    document_names: Callable[[Sequence[int]], list[str]]
    """The names of documents, given their indices."""
    train_counts: np.ndarray | None = None
    """[V] occurrences of each id in the training split, if known."""
    training: Stream | None = None
    """The training split, if there is one and dynamic evaluation needs it."""
    baselines: Baselines | None = None
    """On rank 0, if `has_baselines`."""
    has_baselines: bool = False

    @property
    def ids(self) -> np.ndarray:
        """[N] all targets, in order."""
        return self.sentences.ids()


def measure_dataset(
    model: LanguageModel, info: ModelInfo, folder: Path, manifest: Manifest, settings: Evaluate, ranks: Ranks
) -> dict[str, Any]:
    """All ranks: the report on one split, `settings.split`, of the dataset in `folder` with this manifest.

    Raises:
        RequestError: no such split, or its ids are of another tokenizer than the model's.
    """
    split = manifest.split(settings.split)
    if manifest.digests["tokenizer"] != info.tokenizer:
        raise RequestError(
            f"{folder}: its ids are of another tokenizer ({manifest.digests['tokenizer'][:16]}) than the model's ({info.tokenizer[:16]}); "
            "evaluate the text itself with --text, or build the dataset with the model's tokenizer.json (--tokenizer.kind file)"
        )
    sentences, stream = Sentences.open(folder, manifest, settings.split), Stream.open(folder, manifest, settings.split)
    training = Sentences.open(folder, manifest, "train") if "train" in manifest.splits else None
    ranks.barrier()  # opening may take long on the rank that prepares what all of them read
    counts = ranks.sum(training.counts(manifest.vocab_size, ranks.rank, ranks.world)) if training is not None else None
    reference, context = None, resolve_context(settings.context, info.context)
    # N-grams have seen the training split's own tokens; and they hold several numbers in memory for every token.
    has_baselines = settings.baselines and training is not None and settings.split != "train" and sentences.tokens <= MAX_TOKENS
    if has_baselines and ranks.first:
        assert training is not None
        training_views = training, Stream.open(folder, manifest, "train")
        reference = baselines(training_views, (sentences, stream), manifest.vocab_size, context)

    def document_names(indices: Sequence[int]) -> list[str]:
        opening = np.searchsorted(first_targets(sentences), stream.opens[list(indices)])
        return dataset.document_names(folder, manifest, settings.split, opening)

    training_stream = Stream.open(folder, manifest, "train") if training is not None and settings.dynamic_lr else None
    with dataset.described(folder, manifest):
        encoder = Encoder.load(folder, info.tokenizer)
    text = _MeasuredText(sentences, stream, encoder, document_names, counts, training_stream, reference, has_baselines)
    with named(f"{info.name} on {settings.split} of {folder}"):
        result, details, losses = _measure(model, info, text, settings, ranks)
    totals = TextCounts(split.documents, split.sentences, split.tokens, split.words, split.bytes, split.unknown, manifest.lossless)
    ids = text.ids if ranks.first else np.zeros(0, np.int64)
    data = {"data": f"{settings.split} of {folder}", "split": settings.split, "data_digest": manifest.digests["content"]}
    data |= {"ids_digest": dataset.ids_digest(ids)}
    values = report(result, totals, _provenance(model, info, settings) | data, details)
    if not reference:
        return values
    mixture = interpolate(losses, reference.losses["kneser_ney_5"])
    interpolated = {"loss_per_token": mixture.loss, "perplexity": perplexity(mixture.loss), "weight": mixture.weight}
    summary = reference.summary() | {"interpolated": interpolated, "advice": None}
    if result.loss >= (ngram_loss := summary["kneser_ney_5"]["loss_per_token"]) and not values["adapted"]:
        training_loss = _training_loss(model, training_views, context, settings)
        summary["advice"] = advice(result.loss, ngram_loss, training_loss, info.model, info.vocab_size, training_views[0].tokens)
        log.warning("%s", summary["advice"])
    return values | {"baselines": summary}


def _training_loss(model: LanguageModel, training: tuple[Sentences, Stream], context: str, settings: Evaluate) -> float:
    """The mean loss of a sample of the training split, in nats; of this rank alone."""
    sentences, stream = training
    num_sentences = max(1, int(np.searchsorted(np.cumsum(sentences.lengths, dtype=np.int64), SAMPLE_TOKENS)))
    ids = sentences.read(np.arange(num_sentences))[1]
    opens = np.append(0, context_ends(sentences, stream, "documents", len(ids))[:-1])
    views = Sentences.from_arrays(ids, np.cumsum(sentences.lengths[:num_sentences])), Stream.from_arrays(ids, opens, sentences.eos)
    scorer = ModelScorer(model)
    return evaluate(scorer, *views, context, 1, settings.batch_tokens, Ranks(0, 1, scorer.device)).loss


def measure_text(
    model: LanguageModel, info: ModelInfo, encoder: Encoder, paths: Sequence[str], settings: Evaluate, ranks: Ranks
) -> tuple[dict[str, Any], "Counter[str]"]:
    """All ranks: the report on text files (files, folders, globs), and how much was skipped, replaced or dropped in them, by reason.

    Raises:
        RequestError: there is no text.
        PacklmError: text that is not UTF-8, if the model's rules do not say how to handle it.
    """
    counts = Counter[str]()
    blocks = documents.read_locations(paths, info.text, encoder.spelled_eos, counts)
    return _measure_blocks(model, info, encoder, blocks, settings, ranks, " ".join(paths)), counts


def measure_texts(
    model: LanguageModel, info: ModelInfo, encoder: Encoder, texts: Sequence[str], settings: Evaluate, ranks: Ranks
) -> tuple[dict[str, Any], "Counter[str]"]:
    """All ranks: as `measure_text`, of text files that hold these texts."""
    counts = Counter[str]()
    blocks = documents.read_texts(texts, info.text, encoder.spelled_eos, counts)
    return _measure_blocks(model, info, encoder, blocks, settings, ranks, f"{len(texts):,} texts in memory"), counts


def _measure_blocks(
    model: LanguageModel, info: ModelInfo, encoder: Encoder, blocks: Iterable[DocumentBlock], settings: Evaluate, ranks: Ranks, name: str
) -> dict[str, Any]:  # fmt: skip
    with named(f"{info.name} on {name}"):
        result, totals, ids_digest, details = measure_documents(model, info, encoder, blocks, settings, ranks, name)
    data = {"data": name, "split": None, "data_digest": ids_digest, "ids_digest": ids_digest}
    return report(result, totals, _provenance(model, info, settings) | data, details)


def measure_documents(
    model: LanguageModel, info: ModelInfo, encoder: Encoder, texts: Iterable[DocumentBlock], settings: Evaluate, ranks: Ranks,
    name: str = "the text",
) -> tuple[Result, TextCounts, str, dict[str, Any]]:  # fmt: skip
    """All ranks: evaluates blocks of documents; returns (result, size of the text, digest of the ids, breakdown).

    Raises:
        RequestError: the documents are empty; the message calls them `name`.
    """
    blocks, names = [], []
    for block in texts:
        encoded = encode_documents(block, info.text, encoder)
        opening = np.searchsorted(encoded.ends, encoded.document_starts, side="right")
        names += block.names.take(pa.array(encoded.documents[opening])).to_pylist()
        blocks.append(encoded)
    if not any(len(block.ids) for block in blocks):
        raise RequestError(f"{name}: no text to evaluate: all documents are empty")
    ids = np.concatenate([block.ids for block in blocks])
    shifts = np.cumsum([0, *(len(block.ids) for block in blocks)]).tolist()
    ends = np.concatenate([block.ends + shift for block, shift in zip(blocks, shifts, strict=False)])
    opens = np.concatenate([block.document_starts + shift for block, shift in zip(blocks, shifts, strict=False)])
    views = Sentences.from_arrays(ids, ends), Stream.from_arrays(ids, opens, encoder.eos)
    text = _MeasuredText(*views, encoder, lambda indices: [names[index] for index in indices])
    result, details, _ = _measure(model, info, text, settings, ranks)
    unknown = int((ids == encoder.unk).sum()) if encoder.unk is not None else 0
    num_words, num_bytes = sum(block.num_words for block in blocks), sum(block.num_bytes for block in blocks)
    totals = TextCounts(len(opens), len(ends), len(ids), num_words, num_bytes, unknown, encoder.lossless)
    return result, totals, dataset.ids_digest(ids), details


def _measure(
    model: LanguageModel, info: ModelInfo, text: _MeasuredText, settings: Evaluate, ranks: Ranks
) -> tuple[Result, dict[str, Any], np.ndarray]:  # fmt: skip
    """All ranks: (summed loss, its breakdown, loss of each token if there are baselines)."""
    groupings = {
        "document": by_document(text.stream.opens),
        "sentence_length": by_sentence_length(text.sentences.lengths),
        "token": by_token(info.vocab_size, text.encoder.eos, text.encoder.unk, text.train_counts),
    }
    num_kept = text.sentences.tokens if text.has_baselines else 0
    scorer = DetailedScorer(_scorer(model, info, settings, text.training), groupings, num_kept)
    context = resolve_context(settings.context, info.context)
    if info.context == "sentences" and context != "sentences":
        log.warning("context %s: the model was trained on single sentences and has never seen one: the loss may be higher", context)
    result = evaluate(scorer, text.sentences, text.stream, context, settings.streams, settings.batch_tokens, ranks)
    ids = text.ids if text.baselines else np.zeros(0, np.int64)
    details = breakdown(scorer.sums(ranks), groupings, ids, text.baselines, text.document_names)
    return result, details, scorer.token_losses(ranks)


def _scorer(model: LanguageModel, info: ModelInfo, settings: Evaluate, training: Stream | None) -> Scorer:
    """The model, with the adaptation that `settings` ask for."""
    if not (settings.cache or settings.dynamic_lr):
        return ModelScorer(model)
    if resolve_context(settings.context, info.context) == "sentences":
        raise RequestError("neural cache and dynamic evaluation learn from the preceding text: give --context documents or streams")
    if settings.cache:
        if isinstance(model, InterpolatedModel) and any(isinstance(component, CacheComponent) for component in model.components):
            raise RequestError("the model has a cache already: leave out evaluate.cache")
        cache = CacheComponent(settings.cache, settings.cache_theta, model.vocab_size)
        return ModelScorer(interpolated(model, cache, settings.cache_share))
    if isinstance(model, InterpolatedModel):
        raise RequestError("dynamic evaluation trains a network, and this one is interpolated: give the model folder it was made from")
    if isinstance(model, QuantizedModel):
        raise RequestError("dynamic evaluation trains the model further: leave --precision at full")
    if training is None:
        raise RequestError("dynamic evaluation scales by the size of gradients in training: give a dataset that has a training split")
    squares = mean_squares(model, training, settings.dynamic_window)
    return DynamicScorer(model, squares, settings.dynamic_lr, settings.dynamic_decay, settings.dynamic_window)


def _provenance(model: LanguageModel, info: ModelInfo, settings: Evaluate) -> dict[str, Any]:
    context = resolve_context(settings.context, info.context)
    adapted = [f"interpolated with {model.description}"] if isinstance(model, InterpolatedModel) else []
    if settings.cache:
        adapted += [f"neural cache of {settings.cache:,} tokens, theta {settings.cache_theta:g}, share {settings.cache_share:g}"]
    elif settings.dynamic_lr:
        adapted += [f"dynamic evaluation, lr {settings.dynamic_lr:g}, decay {settings.dynamic_decay:g}, window {settings.dynamic_window}"]
    return {
        "model": info.name,
        "weights_digest": info.weights,
        "tokenizer_digest": info.tokenizer,
        "context": context,
        "streams": settings.streams if context == "streams" else None,
        "adapted": "; ".join(adapted) or None,
    }
