"""Text in, text out: a trained model with its tokenizer. `packlm.load(path)` returns an `Engine`."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from packlm import config as configuration
from packlm import tracking
from packlm.base.errors import RequestError
from packlm.config import Generate
from packlm.config.requests import NextRequest, PromptsRequest, TextsRequest, validated
from packlm.corpus import documents
from packlm.distributed import Ranks
from packlm.evaluation import measure
from packlm.generation import decoding
from packlm.generation.fusion import FusionScorer
from packlm.generation.prompt_batch import Detokenizer, check_finite
from packlm.generation.session import TextSession
from packlm.generation.stepper import Stepper
from packlm.interpolation import folder as interpolation_folder
from packlm.model import folder as model_folder
from packlm.model import quantized
from packlm.model.info import ModelInfo
from packlm.model.language_model import LanguageModel
from packlm.model.precision import allow_rounding
from packlm.model.recurrence import State
from packlm.scoring import sentences as scoring
from packlm.text import sentences
from packlm.text.encoder import Encoder

log = logging.getLogger("packlm")

BATCH_TOKENS = configuration.Evaluate().batch_tokens
PROMPT_RULES = {"on_control": "keep", "on_empty": "skip"}
"""How a prompt is read where rules of a corpus would stop: the model is asked to go on from it, whatever it is."""


@dataclass(frozen=True)
class Continuation:
    """A continuation of a prompt."""

    text: str
    """The generated text, with the whitespace between prompt and continuation: prompt + text is the whole text."""
    log_prob: float
    """ln P(continuation | prompt) under the model, in nats; with an empty prompt ln P(text)."""
    tokens: int
    """Number of generated tokens, a final `<eos>` included."""
    finished: bool
    """Whether it ended with `<eos>` or a stop string; false if it was cut at `max_tokens`, or because every next token was forbidden."""


@dataclass(frozen=True)
class Step:
    """What a model gives after reading an id of each of B rows; V is its vocabulary."""

    log_probs: torch.Tensor
    """[B, V] ln P(next id), in nats."""
    state: State
    """The state of each row, to read on from: for each layer [C, B, S], C vectors of S units."""
    layers: list[torch.Tensor]
    """Embeddings [B, I], then the outputs [B, H] of each layer."""


@dataclass(frozen=True)
class Reading:
    """What a model gives after reading one text."""

    ids: np.ndarray
    """[T] the ids read, `<eos>` first."""
    tokens: list[str]
    """Their texts."""
    log_probs: torch.Tensor
    """[V] ln P(next id) after them, in nats."""
    state: State
    """The state after them, to read on from."""
    layers: list[torch.Tensor]
    """Embeddings [T, I], then the outputs [T, H] of each layer, at every token."""


class Engine:
    """A trained model ready for inference. Results do not depend on earlier calls."""

    def __init__(self, model: LanguageModel, info: ModelInfo, encoder: Encoder, generation_config: dict[str, Any]):
        """`generation_config`: the decoding settings (`generate.*`) that the model folder recommends."""
        self.model, self.info, self.encoder, self.generation_config = model, info, encoder, generation_config

    @classmethod
    def load(
        cls, address: str | Path, device: torch.device | None = None, store: configuration.Tracking | None = None, precision: str = "full"
    ) -> "Engine":
        """Opens a model folder, or a registry address (`models:/NAME@ALIAS`, `models:/NAME/3`). From then on, this process computes
        float32 products without TF32 or bfloat16 rounding, on GPUs too.

        Args:
            device: where to run; by default a GPU if there is one.
            precision: full, or for CPUs bf16 or int8 (`packlm.model.quantized`).
            store: the registry; by default that of the environment.

        Raises:
            RequestError: no such model, or one of another version.
            PacklmError: one of its files is damaged.
        """
        folder = tracking.folder_of(address, store)
        model, info = model_folder.load(folder)
        encoder = Encoder.load(folder, info.tokenizer)
        if encoder.vocab_size > info.vocab_size:
            raise RequestError(f"{folder}: the tokenizer has {encoder.vocab_size:,} tokens, the model {info.vocab_size:,}")
        allow_rounding(False)
        if precision != "full" and device is not None and device.type != "cpu":
            raise RequestError(f"precision {precision} is for CPUs; use full here, or --train.device cpu")

        def prepare(network: LanguageModel) -> LanguageModel:
            if precision != "full":
                return quantized.quantize(network, precision)
            return network.to(device or torch.device("cuda" if torch.cuda.is_available() else "cpu"))

        model = interpolation_folder.apply(folder, prepare(model), encoder.eos, prepare)
        return cls(model, info, encoder, model_folder.read_generation_config(folder))

    @property
    def device(self) -> torch.device:
        return self.model.embedding.weight.device

    def score(self, texts: str | Iterable[str], document: bool = False) -> list[scoring.SentenceScore]:
        """Scores each text as one sentence: its log-probability (nats), and for each word and token surprisal and entropy (bits).

        Args:
            texts: a string is one text.
            document: whether the texts are consecutive sentences of one document, each read with those before it as context; by
                default every text is read by itself.
        """
        request = validated(TextsRequest, texts=texts, document=document)
        if request.document:
            self.warn_of_context("document")
        items = (scoring.Sentence(text, opens=not (request.document and number)) for number, text in enumerate(request.texts))
        return list(scoring.score(self.model, self.encoder, items, BATCH_TOKENS, request.document))

    def perplexity(self, texts: str | Iterable[str]) -> float:
        """Perplexity per token (`<eos>` included) of all texts together, as `packlm evaluate --text` measures text files with each of them
        (a string is one text): read by the model's own rules, with the context that it was trained with. `evaluate` has all numbers."""
        return float(self.evaluate(texts)["perplexity"])

    def evaluate(self, texts: str | Iterable[str]) -> dict[str, Any]:
        """The report of `packlm evaluate --text` on texts (docs/numbers.md), as a JSON object: `tokens`, `nll`, `perplexity`,
        `bits_per_byte`, ...

        Raises:
            RequestError: something is not a text, or all of them are empty.
            PacklmError: a text that the model's rules refuse, as one with control characters.
        """
        request = validated(TextsRequest, texts=texts)
        settings, ranks = configuration.Evaluate(), Ranks(0, 1, self.device)
        report, _ = measure.measure_texts(self.model, self.info, self.encoder, request.texts, settings, ranks)
        return report

    def states(self, rows: int = 1) -> State:
        """The state of some rows before anything was read: for each layer zeros [C, rows, S], C vectors of S units. An LSTM has two."""
        return self.model.zero_state(rows)

    def step(self, ids: Sequence[int], state: State) -> Step:
        """Reads an id of each row. A row's results have the same bits whatever other rows run beside it.

        Args:
            ids: of each row, 0 to the vocabulary's size; `model.encoder` has those of texts.
            state: of `states`, or of an earlier `step` or `read`; it is not changed.

        Raises:
            RequestError: an id is outside the vocabulary, or there are not as many states as ids.
        """
        array = np.asarray(ids)
        if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
            raise RequestError(f"ids: a list of whole numbers is expected, found {ids!r}")
        if array.min() < 0 or array.max() >= self.info.vocab_size:
            raise RequestError(f"ids: {array.min()} to {array.max()}, and the vocabulary has 0 to {self.info.vocab_size - 1}")
        shapes = [tuple(part.shape) for part in self.states(len(array))]
        if [tuple(part.shape) for part in state] != shapes:
            raise RequestError(f"state: shapes {[tuple(part.shape) for part in state]}, and {len(array)} ids need {shapes}")
        with torch.no_grad():  # not inference mode, whose tensors nothing can be trained on
            return Step(*self.stepper.step_layers(torch.from_numpy(array.astype(np.int64)).to(self.device), state))

    def read(self, texts: str | Iterable[str], state: State | None = None) -> list[Reading]:
        """Reads each text (a string is one text), as a prompt is read: `<eos>`, then its sentences, the last one left open.

        Args:
            state: that every text is read after, as the next sentence: the `state` of another reading. By default nothing precedes it.
        """
        request = validated(TextsRequest, texts=texts)
        readings = []
        for text in request.texts:
            (ids, _), steps, current = self.encode_prompt(text), [], state or self.states()
            for id in ids:
                steps.append(self.step([id], current))
                current = steps[-1].state
            layers = [torch.cat(outputs) for outputs in zip(*(step.layers for step in steps), strict=True)]
            tokens = [self.encoder.token(int(id)) for id in ids]
            readings.append(Reading(ids, tokens, steps[-1].log_probs[0], current, layers))
        return readings

    def session(self, text: str = "") -> TextSession[Continuation]:
        """A text that is read piece by piece, and keeps its state between calls: `feed`, `next`, `score`, `generate`."""
        session = TextSession(self)
        session.feed(text)
        return session

    def fusion(self, state: State | None = None) -> FusionScorer:
        """The model as the language model of a decoder (shallow fusion): hypotheses that grow word by word, many at a time.

        Args:
            state: that of a reading or a session, whose text precedes the hypotheses. By default nothing precedes them.
        """
        return FusionScorer(self.stepper, self.encoder, state or self.states())

    def next(self, prompt: str, top: int = 10) -> list[tuple[str, float]]:
        """The `top` most likely next tokens after a prompt, most likely first, each with its probability (0 to 1)."""
        request = validated(NextRequest, prompt=prompt, top=top)
        ids, _ = self.encode_prompt(request.prompt)
        with torch.inference_mode():
            log_probs, _ = self.stepper.read([ids])
        return self.most_likely(log_probs[0], request.top)

    def most_likely(self, log_probs: torch.Tensor, top: int) -> list[tuple[str, float]]:
        """The `top` most likely tokens of a distribution [V], each with its probability."""
        check_finite(log_probs.logsumexp(-1))
        probabilities, tokens = log_probs.double().exp().topk(min(top, self.encoder.vocab_size))
        return [(self.encoder.token(token), value) for token, value in zip(tokens.tolist(), probabilities.tolist(), strict=True)]

    def generate(self, prompts: str | Iterable[str], seed: int = 1, **settings: Any) -> list[list[Continuation]]:
        """Continues each prompt (a string is one prompt); the most likely continuation first. An empty prompt generates a text from its
        beginning.

        Args:
            seed: of sampling, 0 to 2^32 - 1.
            settings: of the section `generate` (docs/generation.md): `strategy`, `samples`, `temperature`, `max_tokens`, ...; by
                default those of the model's `generation_config.json`.
        """
        request = validated(PromptsRequest, prompts=prompts)
        resolved, seed = self.decoding_settings(seed, settings)
        encoded = [self.encode_prompt(prompt) for prompt in request.prompts]
        distinct = {ids.tobytes(): (ids, unfinished) for ids, unfinished in encoded}  # equal prompts are continued once
        items = list(distinct.values())

        def continue_some(batch: list[int]) -> list[list[Continuation]]:
            return self.continue_batch([items[index] for index in batch], resolved, seed)

        continuations = dict(zip(distinct, decoding.in_batches([ids for ids, _ in items], resolved, continue_some), strict=True))
        return [continuations[ids.tobytes()] for ids, _ in encoded]

    def decoding_settings(self, seed: int, settings: Mapping[str, Any]) -> tuple[Generate, int]:
        """Those that the model recommends, with these instead where they are given, and the seed, validated."""
        resolved, seed = decoding.resolve({**self.generation_config, **settings}, seed, self.info.vocab_size)
        for key, reason in resolved.ignored.items():
            if key in settings:
                log.warning("%s", reason)
        return resolved, seed

    def encode_prompt(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Encodes a prompt as the model reads it: `<eos>`, then the ids of the text without whitespace around it.

        A model trained on single sentences reads the prompt as the beginning of one. Any other model reads it like its training text:
        split into sentences, each but the last closed with `<eos>`.

        Returns (all ids to read, those of the last sentence, which is left open).

        Raises:
            RequestError: the prompt is not text (it holds an unpaired surrogate).
        """
        validated(NextRequest, prompt=text)
        *closed, last = self._sentences(text) or [""]
        before, _ = self.encoder.encode_sentences(closed)
        unfinished = self.encoder.encode_open(last)
        return np.concatenate([[self.encoder.eos], before, unfinished]), unfinished

    def continue_batch(
        self, prompts: Sequence[tuple[np.ndarray, np.ndarray]], settings: Generate, seed: int,
        before: tuple[torch.Tensor, State] | None = None,
    ) -> list[list[Continuation]]:  # fmt: skip
        """Continues one batch of prompts, each as `encode_prompt` returns it. `before`: what reading them gives, if they have been read."""
        ids = [ids for ids, _ in prompts]
        generations = decoding.generate(self.stepper, ids, settings, seed, self.encoder.eos, self.detokenizer, before)
        return [
            [Continuation(self._decode(unfinished, item.ids), item.log_prob, len(item.ids), item.finished) for item in items]
            for (_, unfinished), items in zip(prompts, generations, strict=True)
        ]

    @cached_property
    def stepper(self) -> Stepper:
        """The model laid out for reading one token at a time."""
        return Stepper(self.model, self.encoder.eos if self.isolated_sentences else None)

    @cached_property
    def detokenizer(self) -> Detokenizer:
        """Ids to text, for stop strings and banned words."""
        spellings = self.encoder.spellings
        padding = [b""] * (self.info.vocab_size - len(spellings))

        def decode(prompt: np.ndarray, ids: np.ndarray) -> str:
            return self._decode(prompt[np.flatnonzero(prompt == self.encoder.eos)[-1] + 1 :], ids)

        return Detokenizer([*spellings, *padding], decode)

    @property
    def isolated_sentences(self) -> bool:
        """Whether every sentence started from a zero state in training: with `segments = sentences`, or as a document of one sentence."""
        rules = self.info.text
        one_sentence = rules.document == "line" and rules.sentences != "sentencex"
        return self.info.context == "sentences" or (self.info.context == "documents" and one_sentence)

    def warn_of_context(self, asked: str) -> None:
        """Logs that a context is asked for (`document`, ...) of a model that has never seen any."""
        if self.isolated_sentences:
            log.warning("context %s: the model was trained on single sentences and has never seen one: scores may be worse", asked)

    def _sentences(self, text: str) -> list[str]:
        """The sentences that the model reads of a prompt: those of its last document, or, for streams that are never reset, of all."""
        if self.info.context == "sentences":
            return [text.strip()]
        rules = self.info.text.model_copy(update=PROMPT_RULES)
        texts = [text for block in documents.read_texts([text], rules, "", Counter()) for _, text in block]
        split = [sentences.split(text, rules.sentences, rules.language)[1] for text in texts]
        return [sentence for document in (split if self.info.context == "streams" else split[-1:]) for sentence, _ in document]

    def _decode(self, before: np.ndarray, ids: np.ndarray) -> str:
        """The text of generated ids, decoded together with the ids before them, which determine the whitespace between."""
        prefix, whole = self.encoder.decode(before), self.encoder.decode(np.concatenate([before, ids]))
        return whole.removeprefix(prefix)
