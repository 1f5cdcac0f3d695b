"""Every setting: typed, documented, one class a section. `pipeline.config` reads them from files, environment and command line."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Paths = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Weight = float | Literal["tune"]


class Section(BaseModel):
    """What all sections share: unknown keys are refused, numbers are finite, values never change."""

    # Built when first needed: the processes that others start get their settings ready made.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)


class Run(Section):
    name: str = Field("quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run, its folder, its dataset's folder and its record in MLflow."""
    dir: Path = Path()
    """Where everything made after the dataset goes; `runs/NAME` unless given."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of the first weights, the order of the batches, dropout and sampling."""


class Corpus(Section):
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "builtin"] = "auto"
    """What the files are. auto: by their names (`.jsonl`, `.csv`, `.tsv`, `.parquet`, each of which may end in `.gz` or `.zst`;
    anything else is text). builtin: documents made on the spot; `corpus.train = "python"`, Python's own documentation."""
    train: Paths = ()
    """Training documents: a file, a folder (searched recursively), a glob, `hub:NAME[:CONFIG[:SPLIT]]` for a Hugging Face
    dataset, `-` for standard input, or a list of these."""
    validation: Paths = ()
    """Validation documents, given the same way."""
    test: Paths = ()
    """Test documents, given the same way."""
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the `train` documents set aside for validation, chosen by a hash of document and `split_seed`."""
    test_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the `train` documents set aside for testing, chosen the same way."""
    split_seed: int = Field(1, ge=0)
    """Another seed, another choice of documents for the fractions."""
    text_field: str = "text"
    """The field that holds a document's text, in JSONL, CSV, Parquet and Hugging Face datasets."""
    encoding: str = "utf-8"
    """Encoding of text, JSONL and CSV files, by its name in Python (`latin-1`, `cp1252`, `utf-16`, ...)."""
    document: Literal["file", "line", "paragraph", "pattern"] = "file"
    """In text files, what a document is: a file, a line, what lies between blank lines, or what begins at a line that
    `document_pattern` matches."""
    document_pattern: str = ""
    """Regular expression, with `document = "pattern"`: a document begins at each line it matches in whole (the white space around it
    aside); what precedes the first is one too. WikiText's articles: `= [^=].* =`."""
    sentences: Literal["line", "sentencex", "none"] = "sentencex"
    """Where sentences end: at line ends, where the sentencex library says, or nowhere (a document is one sentence)."""
    language: str = "en"
    """Language of the text, for sentencex."""
    max_tokens: int | None = Field(None, ge=8)
    """Tokens from which on a sentence is overlong, `<eos>` included; no sentence is unless given."""
    on_overlong: Literal["split", "keep", "error"] = "split"
    """What to do with an overlong sentence: split it at white space into pieces marked as joined, keep it, or stop; all counted."""
    drop_lines: Paths = ()
    """Regular expressions; a line that one of them matches in whole (the white space around it aside) is dropped, and counted."""
    on_bad_text: Literal["error", "replace", "skip"] = "error"
    """What to do with bytes that are not in `encoding`, records that cannot be read (and a spelled `<eos>` at word level): stop and
    name the place, replace them by U+FFFD (by `<unk>`; a record cannot be replaced and is skipped), or skip the document; counted."""
    on_control: Literal["error", "keep", "remove", "skip"] = "error"
    """What to do with NUL and other control characters (U+0000-U+0008, U+000E-U+001F, U+007F): stop and name the place, keep them,
    remove them, or skip the document; the last two are counted."""
    line_ends: Literal["keep", "lf"] = "keep"
    """Keep CR LF line ends as they are, or turn each into LF, counted."""
    on_empty: Literal["skip", "error"] = "skip"
    """What to do with documents of nothing but white space: skip them, counted, or stop and name the first."""
    duplicates: Literal["keep", "skip"] = "keep"
    """Keep documents whose text occurs twice, or skip all but one of them, counted; what is in test or validation leaves the training
    split, otherwise the first stays."""
    max_document_bytes: int = Field(1 << 28, ge=1)
    """A document longer than this stops the work: it would have to fit in memory several times over."""

    @field_validator("drop_lines")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_regular(pattern) for pattern in patterns)

    @field_validator("document_pattern")
    @classmethod
    def _compile_one(cls, pattern: str) -> str:
        return _regular(pattern)

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            "".encode(name)
        except LookupError:
            raise ValueError("no encoding that Python knows") from None
        return name

    @model_validator(mode="after")
    def _splits(self) -> "Corpus":
        if self.validation and self.validation_fraction:
            raise ValueError("give either validation files (validation) or a validation_fraction, not both")
        if self.test and self.test_fraction:
            raise ValueError("give either test files (test) or a test_fraction, not both")
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction and test_fraction leave nothing to train on")
        if (self.document == "pattern") != bool(self.document_pattern):
            raise ValueError('document = "pattern" and document_pattern = "..." go together')
        return self


class Tokenizer(Section):
    kind: Literal["word", "character", "bpe", "file"] = "bpe"
    """word: see `words`. character: Unicode characters. bpe: byte-level byte-pair encoding. All three are trained on the training
    split. file: a ready one, see `file`."""
    vocab_size: int = Field(10_000, ge=1)
    """Most entries the vocabulary may have, special tokens included; a ready tokenizer has the size it has."""
    min_count: int = Field(1, ge=1)
    """word, character: what the training split has less often is unknown."""
    words: Literal["space", "punctuation"] = "space"
    """What counts as a word: what stands between white space; or runs of letters, digits and underscores, and runs of other marks."""
    lowercase: bool = False
    """The tokenizer turns text into lower case, in training and in use."""
    normal_form: Literal["none", "nfc", "nfd", "nfkc", "nfkd"] = "none"
    """The Unicode normal form that the tokenizer turns text into, in training and in use."""
    sample_bytes: int = Field(200_000_000, ge=1)
    """bpe: learns from about so much text, from documents chosen by a hash of their names; from all where there is no more."""
    file: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)] | None = None
    """With `kind = "file"`: a `tokenizer.json`, a SentencePiece `.model`, or `hub:NAME` for a tokenizer on the Hugging Face hub."""
    eos: str = "<eos>"
    """With `kind = "file"`: the special token that ends a sentence there (`<|endoftext|>`, `</s>`); it is called `<eos>` from then on."""

    @model_validator(mode="after")
    def _file(self) -> "Tokenizer":
        if (self.kind == "file") != (self.file is not None):
            raise ValueError('kind = "file" and file = "..." go together')
        return self


class Dataset(Section):
    dir: Path = Path()
    """The dataset's folder; `data/NAME` unless given."""
    rows: Literal["stream", "document"] = "stream"
    """The fixed view cuts all documents laid end to end (stream), or each document by itself (document)."""
    length: int = Field(64, ge=1)
    """Targets in a row of the fixed view."""
    shards: int = Field(8, ge=1)
    """Most shards a split is cut into."""
    executor: Literal["processes", "datatrove", "ray", "slurm"] = "processes"
    """Who runs the tasks: processes of this machine, or an executor of datatrove (local, Ray, Slurm). Changes nothing in the dataset."""
    workers: int | None = Field(None, ge=1)
    """Tasks that run at a time; as many as there are processors unless given. Changes nothing in the dataset."""
    slurm: dict[str, str | int] = {}
    """With `executor = "slurm"`: what sbatch is given (`partition`, `time`, `mem_per_cpu_gb`, `qos`, ...)."""


Share = Annotated[float, Field(ge=0, lt=1)]


class Model(Section):
    cell: Literal["rnn", "rnn_relu", "gru", "lstm", "mogrifier"] = "lstm"
    """The recurrent cell: Elman's (tanh, or ReLU), gated recurrent unit, long short-term memory, or an LSTM whose inputs and states
    gate one another (Melis et al. 2020)."""
    layers: int = Field(2, ge=1)
    """Recurrent layers, one on the other."""
    hidden: int | tuple[int, ...] = 200
    """Units of every layer, or a list with the units of each."""
    embedding: int | None = Field(None, ge=1)
    """Width of the word vectors; that of the last layer unless given."""
    tied: bool = True
    """The softmax uses the word vectors as its weights (Inan et al. 2017; Press and Wolf 2017)."""
    dropout: Share = 0.0
    """Share of units dropped from the word vectors, between layers and before the softmax (Zaremba et al. 2014), in each of the three
    places that has no share of its own."""
    dropout_input: Share | None = None
    """Share of units dropped from the word vectors (AWD-LSTM's dropouti)."""
    dropout_hidden: Share | None = None
    """Share of units dropped between layers (AWD-LSTM's dropouth)."""
    dropout_output: Share | None = None
    """Share of units dropped before the softmax (AWD-LSTM's dropout)."""
    dropout_embedding: Share = 0.0
    """Share of words whose vectors are dropped, wherever they occur in a step (Gal and Ghahramani 2016; AWD-LSTM's dropoute)."""
    weight_drop: Share = 0.0
    """Share of the recurrent weights dropped for a step (Merity et al. 2017; AWD-LSTM's wdrop)."""
    locked: bool = False
    """Variational dropout: a segment loses the same units at every time step (Gal and Ghahramani 2016; Merity et al. 2017)."""

    def dropped_before(self, layer: int) -> float:
        """Share of units dropped before a layer; `layer = layers` is the softmax."""
        own = self.dropout_input if layer == 0 else self.dropout_output if layer == self.layers else self.dropout_hidden
        return self.dropout if own is None else own

    @property
    def noisy(self) -> bool:
        """Whether anything is dropped at all."""
        return any((*map(self.dropped_before, range(self.layers + 1)), self.dropout_embedding, self.weight_drop))

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer."""
        return (self.hidden,) * self.layers if isinstance(self.hidden, int) else self.hidden

    @property
    def embedding_width(self) -> int:
        return self.embedding or self.widths[-1]

    @model_validator(mode="after")
    def _fit(self) -> "Model":
        if len(self.widths) != self.layers:
            raise ValueError(f"hidden lists {len(self.widths)} widths for layers = {self.layers}")
        if min(self.widths) < 1:
            raise ValueError("hidden must be at least 1")
        if self.tied and self.embedding_width != self.widths[-1]:
            raise ValueError(
                f"tied = true needs an embedding as wide as the last layer: embedding = {self.embedding_width}, "
                f"last layer {self.widths[-1]}; make them equal or set tied = false"
            )
        return self


class Train(Section):
    segments: Literal["sentences", "rows", "streams"] = "sentences"
    """What the state flows through: sentences and rows start from zero, streams carry their state from batch to batch."""
    layout: Literal["auto", "steps", "packed", "rectangle"] = "auto"
    """How a batch of segments runs: through our own recurrence, as a PackedSequence, or as dense rectangles. All give the same numbers;
    auto takes the fastest for each batch."""
    reset: Literal["document", "none"] = "document"
    """Streams: state is zeroed where a document begins, or never within an epoch (as is usual on Penn Treebank)."""
    streams: int = Field(20, ge=1)
    """Streams: how many run side by side, over all processes."""
    window: int = Field(35, ge=1)
    """Streams: time steps between two updates (truncated back-propagation through time)."""
    window_drawn: bool = False
    """Streams: windows are drawn around `window`, now and then around half of it, and the learning rate goes with their length (Merity et
    al. 2017)."""
    global_batch_tokens: int = Field(2048, ge=1)
    """Sentences and rows: tokens in a batch, over all processes, to within a segment."""
    on_overlong: Literal["error", "cut"] = "error"
    """Sentences: what to do with those longer than `global_batch_tokens`: stop before the first step, or cut them into pieces that start
    from zero; counted."""
    accumulate: int = Field(1, ge=1)
    """Passes that each process makes for an update, one after the other; a batch may be so many times larger than fits in memory."""
    bitwise: int = Field(0, ge=0)
    """Fixed parts of each batch whose gradients are added up in order, so that any number of processes that divides it trains the same to
    the last bit, each on one thread of a processor; slower. 0: the same to rounding."""
    init: str = ""
    """Model folder or registry address (`models:/NAME@champion`) whose weights to start from; from random ones unless given."""
    optimizer: Literal["sgd", "nt-asgd", "adamw", "rmsprop", "muon"] = "adamw"
    """Stochastic gradient descent; the same, averaged from when validation stops improving (Merity et al. 2017); Adam with decoupled weight
    decay; RMSprop; or Muon for the layers' matrices and Adam for everything else (Jordan et al. 2024)."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay."""
    nt_interval: int = Field(5, ge=1)
    """nt-asgd: averaging begins at a validation worse than the best of all but the so many before it (the paper's n)."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Validates and keeps an exponential moving average of the weights with this decay; 0 keeps the weights themselves."""
    clip: float = Field(0.25, ge=0)
    """Largest norm of the gradient, scaled down to it where it is larger; 0 never scales."""
    ar: float = Field(0.0, ge=0)
    """Activation regularization: weight of the mean square of what the softmax gets (Merity et al. 2017; AWD-LSTM's alpha, 2 there)."""
    tar: float = Field(0.0, ge=0)
    """Temporal activation regularization: weight of the mean square of the last layer's change from one time step to the next (Merity
    et al. 2017; AWD-LSTM's beta, 1 there)."""
    logits_mb: int = Field(30, ge=1)
    """Memory (MiB) that the logits of a batch may take up at a time."""
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd", "plateau", "zaremba"] = "cosine"
    """Learning rate over time, after the warm-up: constant; a line or half a cosine down to `lr_floor`; as 1 over the root of the steps;
    stable until the last `decay_share`, then a line down to `lr_floor`; times `lr_factor` after every validation that brought nothing
    better; or times `lr_factor` after every epoch from `flat_epochs` on (Zaremba et al. 2014)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the learning rate rises from 0, before the schedule begins."""
    lr_floor: float = Field(0.01, ge=0, le=1)
    """linear, cosine, wsd: the share of `lr` at which they end."""
    lr_factor: float = Field(0.25, gt=0, lt=1)
    """plateau, zaremba: what the learning rate is multiplied by."""
    flat_epochs: int = Field(4, ge=0)
    """zaremba: epochs before the learning rate falls."""
    decay_share: float = Field(0.2, gt=0, le=1)
    """wsd: share of all steps in which the learning rate falls."""
    patience: int = Field(0, ge=0)
    """Stops after so many validations without a new best (early stopping); 0 never does."""
    epochs: int = Field(1, ge=1)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many updates, if that comes before the last epoch ends."""
    validate_every: int | None = Field(None, ge=1)
    """Updates between two validations; at the end of every epoch unless given."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Updates between two checkpoints, besides the one at every validation."""
    keep: int = Field(2, ge=1)
    """Checkpoints kept, the latest ones, besides the best."""
    samples: int = Field(3, ge=0)
    """Texts generated at every validation, from nothing, with the same random numbers each time."""
    log_every: int = Field(20, ge=1)
    """Updates between two lines of metrics."""
    precision: Literal["float32", "float64", "medium", "bf16", "fp16"] = "float32"
    """Arithmetic. medium: float32 tensors whose matrix products may round to bfloat16 (TF32 on GPUs). bf16, fp16: products in that
    type, all else in float32; fp16 leaves out the updates that overflow, and counts them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes GPUs where there are enough for all processes."""
    processes: int = Field(1, ge=1)
    """Processes that `python -m pipeline run` and `make train` start with torchrun."""
    timeout_seconds: float = Field(600, gt=0)
    """A process that does not answer the others for so long is given up, and the training stops."""

    @model_validator(mode="after")
    def _go_together(self) -> "Train":
        if self.ema and self.optimizer == "nt-asgd":
            raise ValueError("ema and optimizer = nt-asgd both average the weights; choose one")
        if self.bitwise and self.accumulate > 1:
            raise ValueError("bitwise runs a batch in parts already; leave accumulate at 1")
        if self.schedule == "inverse_sqrt" and not self.warmup_steps:
            raise ValueError("schedule = inverse_sqrt falls from the end of the warm-up: give warmup_steps")
        return self


class Evaluate(Section):
    split: Literal["train", "validation", "test", "all"] = "validation"
    """The split that `serve evaluate` measures; all: each that the dataset has, one after the other."""
    context: Literal["auto", "sentences", "documents", "streams"] = "auto"
    """What precedes a prediction: its sentence alone, its document, or its stream; auto: what the model was trained with."""
    streams: int = Field(1, ge=1)
    """In how many streams the split is measured, with context streams."""
    batch_tokens: int = Field(8192, ge=1)
    """Tokens run at a time; changes nothing in the numbers."""
    baselines: bool = True
    """Measures on the same tokens, if they are held out, what predicts without a model: all words alike, their frequencies, Kneser-Ney
    5-grams."""
    cache: int = Field(0, ge=0)
    """Tokens that a neural cache remembers (Grave et al. 2017): what followed there gets likelier where the text looks alike; 0: none."""
    cache_theta: float = Field(0.3, ge=0)
    """How much more alike places count in the cache than others; 0: all the same."""
    cache_share: float = Field(0.1, gt=0, lt=1)
    """The share of the probability that the cache gives out."""
    dynamic_lr: float = Field(0, ge=0)
    """Learning rate with which the model goes on learning from the text after scoring it (dynamic evaluation, Krause et al. 2018); 0: it
    does not."""
    dynamic_decay: float = Field(0.02, ge=0)
    """Dynamic evaluation: how strongly weights are drawn back to the trained ones."""
    dynamic_window: int = Field(5, ge=1)
    """Dynamic evaluation: tokens between two updates."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "Evaluate":
        if self.cache and self.dynamic_lr:
            raise ValueError("cache and dynamic_lr: measure one at a time")
        if self.dynamic_lr and self.streams > 1:
            raise ValueError("dynamic_lr: a model learns from one text in order; leave streams at 1")
        return self

    def splits(self, there: Iterable[str]) -> list[str]:
        """The splits to measure of a dataset that has those given."""
        return list(there) if self.split == "all" else [self.split]


class Score(Section):
    context: Literal["auto", "sentence", "document"] = "auto"
    """What precedes a prediction in `serve score`: its sentence alone, or its document; auto: as the model was trained."""
    rows: Literal["word", "token", "sentence"] = "word"
    """What a row of the TSV is."""
    format: Literal["auto", "text", "tsv", "jsonl"] = "auto"
    """What the input is; auto: by its name (`.tsv`, `.jsonl`, anything else is text)."""
    text_field: str = "text"
    """The column or field of the input that holds the sentence."""


class Pairs(Section):
    format: Literal["auto", "tsv", "jsonl"] = "auto"
    """What the input of `serve pairs` is; auto: JSONL where its name ends in `.jsonl`, else TSV."""
    good: str = ""
    """The column or field with the acceptable sentence; empty: `good`, in JSONL `sentence_good`."""
    bad: str = ""
    """The one with the other sentence; empty: `bad`, in JSONL `sentence_bad`."""
    group: str = ""
    """The one by which accuracy is given apart; empty: none."""


class Rescore(Section):
    lm_weight: Weight = "tune"
    """What log P of a hypothesis counts for; tune: what gives the fewest word errors on the references."""
    word_bonus: Weight = 0.0
    """What is added for each word, in nats; tune likewise."""
    old_lm_weight: Weight = 0.0
    """What the score of the recogniser's own language model counts for, where the lists hold it apart; tune likewise."""
    context: int = Field(0, ge=0)
    """Utterances of the same recording that are read before a hypothesis."""
    context_from: Literal["best", "reference"] = "best"
    """What is read of an earlier utterance: the hypothesis that won, or its reference (which flatters)."""
    sign: Literal["log-prob", "cost"] = "log-prob"
    """What a score in JSONL is: higher is better, or lower."""
    log_base: Annotated[float, Field(gt=1)] | Literal["e"] = "e"
    """The base of the logarithm that a score in JSONL is."""


Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: ((value,) if value else ()) if isinstance(value, str) else value)]


class Generate(Section):
    prompts: tuple[str, ...] | Path = ()
    """Prompts of the generation stage: a list of them, or a file with one a line (or JSONL with `prompt`); none: text from nothing."""
    strategy: Literal["greedy", "sample", "beam"] = "sample"
    """Always the likeliest token; random; or the likeliest sequences that a beam search finds."""
    samples: int = Field(1, ge=1)
    """Continuations of each prompt; the likeliest come first. Greedy has one, beam at most `beams`."""
    temperature: float = Field(1.0, gt=0)
    """sample: divides the logits; below 1 the likely gets likelier."""
    top_k: int = Field(0, ge=0)
    """sample: draws from the so many likeliest tokens; 0 from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """sample: draws from the fewest tokens that together have this probability (Holtzman et al. 2020)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """sample: draws from the tokens at least so many times as likely as the likeliest (Nguyen et al. 2024)."""
    typical_p: float = Field(1.0, gt=0, le=1)
    """sample: draws from the fewest tokens that together have this probability, those first whose surprisal is nearest the entropy
    (Meister et al. 2023)."""
    replacement: bool = True
    """sample: the samples of a prompt are independent; false: they are all different, drawn without replacement (Kool et al. 2019)."""
    beams: int = Field(5, ge=1)
    """beam: hypotheses kept at each step."""
    length_penalty: float = Field(0.0, ge=0)
    """beam: ranks by log P / tokens^length_penalty; 0 by log P, 1 by the mean of a token. More favours longer ones."""
    no_repeat_ngram: int = Field(0, ge=0)
    """No sequence of so many tokens occurs twice in a generation; 0 allows it."""
    banned: Strings = ()
    """Words that no generation contains as a word, however they are spelled in tokens."""
    min_tokens: int = Field(0, ge=0)
    """Fewest tokens generated before one may end, `<eos>` included."""
    max_tokens: int = Field(60, ge=1)
    """Most tokens generated after a prompt."""
    stop: Strings = ()
    """A generation ends with the token that makes its text contain one of these; its text keeps them."""
    stop_at_eos: bool = True
    """A generation ends with its sentence; false: it goes on into the next ones, until `max_tokens` or a string of `stop`."""
    batch_tokens: int = Field(8192, ge=1)
    """Tokens of prompts and continuations, over all samples or beams, that are held at a time; changes nothing in the text."""

    @field_validator("banned", "stop")
    @classmethod
    def _spelled(cls, strings: tuple[str, ...]) -> tuple[str, ...]:
        if "" in strings:
            raise ValueError("an empty string is in every text; leave it out")
        return strings

    @field_validator("banned")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [word for word in words if word != word.strip()]:
            raise ValueError(f"{wrong[0]!r} has white space around it; give the word alone")
        return words

    @model_validator(mode="after")
    def _possible(self) -> "Generate":
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower it or raise max_tokens")
        return self

    @property
    def ignored(self) -> dict[str, str]:
        """The settings that the strategy, or another setting, leaves without effect: why, for each."""
        given = self.model_dump(exclude_defaults=True)
        why: dict[str, str] = {}
        own = {"sample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "replacement"), "beam": ("beams", "length_penalty")}
        for strategy, keys in own.items():
            if self.strategy != strategy:
                why |= {key: f"generate.{key} is for strategy = {strategy}, not {self.strategy}" for key in keys if key in given}
        possible = {"greedy": 1, "beam": self.beams, "sample": self.samples}[self.strategy]
        if self.samples > possible:
            why["samples"] = f"generate.samples = {self.samples}: {self.strategy} gives at most {possible} of each prompt"
        if self.min_tokens and not (self.stop_at_eos or self.stop):
            why["min_tokens"] = "generate.min_tokens: nothing ends a generation before max_tokens"
        return why


DRAWING = tuple(name for name in Generate.model_fields if name not in ("prompts", "batch_tokens"))
"""The settings of `generate` that shape a text: what a model's folder recommends, and what a prompt may have for itself."""


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"
    """MLflow's store or server; an empty string records nothing."""
    experiment: str = "packlm"
    """MLflow experiment that the runs belong to."""
    model_name: str = ""
    """Name under which the evaluated model is registered; the run's name unless given."""


class Config(Section):
    """All settings of all stages. Make one with `resolve` or `load`."""

    run: Run = Field(default_factory=Run)
    corpus: Corpus = Field(default_factory=Corpus)
    tokenizer: Tokenizer = Field(default_factory=Tokenizer)
    dataset: Dataset = Field(default_factory=Dataset)
    model: Model = Field(default_factory=Model)
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    score: Score = Field(default_factory=Score)
    pairs: Pairs = Field(default_factory=Pairs)
    rescore: Rescore = Field(default_factory=Rescore)
    generate: Generate = Field(default_factory=Generate)
    tracking: Tracking = Field(default_factory=Tracking)


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern
