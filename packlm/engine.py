"""Text in, text out: a trained model with its tokenizer. `packlm.load(path)` gives an `Engine`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from packlm import config as configuration
from packlm import tracking
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Generate
from packlm.distributed import Ranks
from packlm.evaluation import measure
from packlm.generation import decoding
from packlm.generation.prompt_batches import batches_of
from packlm.generation.stepper import Stepper
from packlm.generation.task import TextInfo
from packlm.model import folder as model_folder
from packlm.model import quantized
from packlm.model.folder import ModelInfo
from packlm.model.language_model import LanguageModel
from packlm.model.precision import round_products
from packlm.scoring import sentences as scoring
from packlm.text import sentences
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoder

log = logging.getLogger("packlm")

BATCH_TOKENS = configuration.Evaluate().batch_tokens


@dataclass(frozen=True)
class Continuation:
    """What a model made of a prompt."""

    text: str
    """What follows the prompt, white space before it included: the prompt and this make up the whole text."""
    log_prob: float
    """log P(continuation | prompt) under the model, in nats; without a prompt log P of the text."""
    tokens: int
    """How many tokens were generated, the `<eos>` that ended them included."""
    finished: bool
    """Whether it ended with its sentence or a stop string; false where it was cut, at `max_tokens` or where nothing was left to choose."""


class Engine:
    """A trained model in use. Nothing it answers depends on what it was asked before."""

    def __init__(self, model: LanguageModel, about: ModelInfo, encoder: Encoder, generation: dict[str, Any]):
        self.model, self.about, self.encoder = model, about, encoder
        self.generation = generation
        """How the model's folder says that text is drawn from it (`generate.*` settings)."""
        self.rules = measure.rules_of(about)

    @classmethod
    def load(
        cls, address: str | Path, device: torch.device | None = None, store: configuration.Tracking | None = None, precision: str = "full"
    ) -> "Engine":
        """Opens a model folder, or a registry address (`models:/NAME@ALIAS`, `models:/NAME/3`). From then on no product of float32 is
        rounded in this process, on GPUs neither.

        Args:
            device: where to run; a GPU where there is one, unless given.
            precision: full, or for CPUs bf16 or int8 (`packlm.model.quantized`).
            store: the registry's; that of the environment unless given.

        Raises:
            RequestError: no such model, or one of another version.
            PacklmError: a file of it is damaged.
        """
        folder = tracking.folder_of(address, store)
        model, about = model_folder.load(folder)
        encoder = Encoder.load(folder)
        if encoder.vocab_size > about.vocab_size:
            raise RequestError(f"{folder}: the tokenizer has {encoder.vocab_size:,} tokens, the model {about.vocab_size:,}")
        generation = files.read_json(folder / "generation_config.json")
        round_products(False)
        if precision != "full":
            if device is not None and device.type != "cpu":
                raise RequestError(f"precision {precision} is for CPUs; use full here, or --train.device cpu")
            return cls(quantized.quantize(model, precision), about, encoder, generation)
        return cls(model.to(device or torch.device("cuda" if torch.cuda.is_available() else "cpu")), about, encoder, generation)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    def score(self, texts: Sequence[str], document: bool = False) -> list[scoring.SentenceScore]:
        """log P(E) of each text, taken as one sentence, and surprisal and entropy of each of its tokens and words.

        Args:
            document: whether the texts are the sentences of one document, each read after those before it; otherwise each is alone.
        """
        found = (scoring.Sentence(text, opens=not (document and number)) for number, text in enumerate(texts))
        return list(scoring.score(self.model, self.encoder, found, BATCH_TOKENS, document))

    def perplexity(self, texts: Sequence[str]) -> float:
        """Perplexity per token of texts, each a document, cut into sentences and measured with the context the model was trained with."""
        ranks = Ranks(0, 1, self.device)
        documents = DocumentBlock.of((f"text {number}", text) for number, text in enumerate(texts))
        result, *_ = measure.measure_documents(self.model, self.about, self.encoder, [documents], configuration.Evaluate(), ranks)
        return result.perplexity

    def next(self, prompt: str, top: int = 10) -> list[tuple[str, float]]:
        """The likeliest next tokens after a prompt, and the probability of each."""
        ids, _ = self.prompt(prompt)
        with torch.inference_mode():
            log_probs, _ = self.stepper.read([ids])
        best, tokens = log_probs[0].double().exp().topk(min(top, self.encoder.vocab_size))
        return [(self.encoder.token(token), probability) for token, probability in zip(tokens.tolist(), best.tolist(), strict=True)]

    def generate(self, prompts: Sequence[str], seed: int = 1, **settings: Any) -> list[list[Continuation]]:
        """Continues each prompt; the likeliest continuations first. An empty prompt gives text from nothing.

        Args:
            settings: those of `generate` (docs/generation.md): `strategy`, `samples`, `temperature`, `max_tokens`, ...; what is not
                given is as in the model's `generation_config.json`.
        """
        chosen = configuration.resolve({"generate": self.generation | settings}).generate
        for key, why in chosen.ignored.items():
            if key in settings:
                log.warning("%s", why)
        read = [self.prompt(prompt) for prompt in prompts]
        different = list({pair[0].tobytes(): pair for pair in read}.values())  # equal prompts are continued once
        found: dict[bytes, list[Continuation]] = {}
        for batch in batches_of([ids for ids, _ in different], chosen):
            continued = self.continue_([different[number] for number in batch], chosen, seed)
            found |= {different[number][0].tobytes(): items for number, items in zip(batch, continued, strict=True)}
        return [found[ids.tobytes()] for ids, _ in read]

    def prompt(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """What the model reads of a prompt: `<eos>`, then its ids; the white space around it is no part of it.

        A model trained on single sentences takes the prompt for the beginning of one. Any other model reads it as it read its training
        text: cut into sentences, each but the last closed with `<eos>`.

        Returns (all ids to read, those of the sentence that is left open).

        Raises:
            RequestError: the prompt is not text (surrogates without a partner).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"the prompt is not text: character {error.start + 1} is half of a surrogate pair") from None
        *closed, last = self._sentences(text) or [""]
        before, _ = self.encoder.encode_sentences(closed)
        unfinished = self.encoder.encode_open(last)
        return np.concatenate([[self.encoder.eos], before, unfinished]), unfinished

    def continue_(self, prompts: Sequence[tuple[np.ndarray, np.ndarray]], settings: Generate, seed: int) -> list[list[Continuation]]:
        """Continues one batch of prompts, each as `prompt` returns it."""
        read = [ids for ids, _ in prompts]
        generations = decoding.generate(self.stepper, read, settings, seed, self.encoder.eos, self.text)
        return [
            [Continuation(self._text(unfinished, item.ids), item.log_prob, len(item.ids), item.finished) for item in items]
            for (_, unfinished), items in zip(prompts, generations, strict=True)
        ]

    @cached_property
    def stepper(self) -> Stepper:
        """The model, ready to read one token at a time."""
        return Stepper(self.model, self.encoder.eos if self.sentences_alone else None)

    @cached_property
    def text(self) -> TextInfo:
        """What decoding has to know of text."""
        spellings = self.encoder.spellings
        return TextInfo([*spellings, *[b""] * (self.about.vocab_size - len(spellings))], self._text_after)

    @property
    def sentences_alone(self) -> bool:
        """Whether every sentence started from a zero state in training: as one, or as a document that is one line and one sentence."""
        single = self.rules.document == "line" and self.rules.sentences != "sentencex"
        return self.about.context == "sentences" or (self.about.context == "documents" and single)

    def _sentences(self, text: str) -> list[str]:
        if self.about.context == "sentences":
            return [text.strip()]
        documents = [text]
        if self.rules.document == "line":
            lines = text.strip().split("\n")
            documents = lines if self.about.context == "streams" else lines[-1:]
        cut = [sentences.split(document, self.rules.sentences, self.rules.language)[1] for document in documents]
        return [sentence for found in cut for sentence, _ in found]

    def _text_after(self, prompt: np.ndarray, ids: np.ndarray) -> str:
        """`_text` of ids after all those of a prompt."""
        return self._text(prompt[np.flatnonzero(prompt == self.encoder.eos)[-1] + 1 :], ids)

    def _text(self, before: np.ndarray, ids: np.ndarray) -> str:
        """The text of generated ids; decoded with the ids before them, which decide on the white space between."""
        prefix, whole = self.encoder.decode(before), self.encoder.decode(np.concatenate([before, ids]))
        return whole.removeprefix(prefix)
