"""Section `train`: batches, optimizer, schedule and length of a training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from packlm.config.section import Location, Section


class Train(Section):
    segments: Literal["sentences", "rows", "streams"] = "sentences"
    """Training sequences: sentences and rows start from a zero state, streams carry their state from batch to batch (stateful truncated
    BPTT)."""
    layout: Literal["auto", "steps", "packed", "rectangle"] = "auto"
    """Kernels and memory layout of a batch: packlm's own time-step kernels, torch's on a PackedSequence, or torch's on dense rectangles.
    All give the same results; auto selects the fastest for each batch."""
    reset: Literal["document", "none"] = "document"
    """Streams: the state is reset at every document boundary, or only at the start of an epoch (usual on Penn Treebank)."""
    streams: int = Field(20, ge=1, le=1_000_000)
    """Streams: number of parallel streams over all processes (the batch size of stateful training)."""
    window: int = Field(35, ge=1, le=1_000_000)
    """Streams: time steps per update (truncated backpropagation through time)."""
    window_drawn: bool = False
    """Streams: samples the length of each window around `window`, sometimes around half of it, and scales the learning rate with it (Merity
    et al. 2017)."""
    mix: dict[Location, Annotated[float, Field(gt=0, lt=1)]] = Field({}, max_length=1_000)
    """Datasets to train on beside `dataset.dir`, and their shares of the targets of every update, such as {"data/speech" = 0.3}; the rest
    is that of `dataset.dir`, which is also what is validated. They need its tokenizer."""
    global_batch_tokens: int = Field(1024, ge=1, le=10**9)
    """Sentences and rows: tokens per update over all processes, up to one segment."""
    grouping: Literal["similar", "equal"] = "similar"
    """Sentences: those of a batch have similar lengths, or all the same one. With equal lengths nothing is padded or dropped, but batches
    of rare lengths are small, so an epoch has more updates."""
    on_overlong: Literal["error", "cut"] = "error"
    """Sentences longer than `global_batch_tokens`: stop before the first step, or cut into pieces, each from a zero state (counted in the
    log)."""
    accumulate: int = Field(1, ge=1, le=100_000)
    """Gradient accumulation: forward and backward passes per update in each process."""
    bitwise: int = Field(0, ge=0, le=100_000)
    """Bitwise reproducibility over numbers of processes: each batch runs in this many fixed parts, whose gradients are added in order; any
    number of processes that divides it gives the same bits. Slower; one CPU thread per process. 0: equal up to rounding."""
    init: Location = ""
    """Model folder or registry address (`models:/NAME@champion`) to take initial weights from (fine-tuning); its shape (`model.*`),
    `segments`, `reset` and tokenizer are those of the training, and `lr` is half of its learning rate, where they are not set.
    Default: random initialization."""
    optimizer: Literal["sgd", "nt-asgd", "adamw", "rmsprop", "muon"] = "adamw"
    """SGD; non-monotonically triggered averaged SGD (Merity et al. 2017); AdamW; RMSprop; or Muon (Jordan et al. 2024) for the weight
    matrices of the layers with AdamW for all other parameters."""
    lr: float = Field(2e-3, gt=0, le=1e4)
    """Learning rate."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    weight_decay: float = Field(0.0, ge=0, le=1e4)
    """Weight decay."""
    nt_interval: int = Field(5, ge=1, le=1_000_000)
    """nt-asgd: averaging starts at a validation worse than the best of all but the last `nt_interval` before it (n in the paper)."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is validated and exported; 0: no averaging."""
    clip: float = Field(0.25, ge=0, le=1e9)
    """Maximum gradient norm (clipping); 0: no clipping."""
    ar: float = Field(0.0, ge=0, le=1e6)
    """Activation regularization: weight of the mean square of the softmax input after dropout (Merity et al. 2017; AWD-LSTM's alpha,
    2 there)."""
    tar: float = Field(0.0, ge=0, le=1e6)
    """Temporal activation regularization: weight of the mean squared difference between consecutive outputs of the last layer (Merity et
    al. 2017; AWD-LSTM's beta, 1 there)."""
    logits_mb: int = Field(30, ge=1, le=1 << 20)
    """Memory limit of the logits, in MiB: the softmax runs over chunks of rows."""
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd", "plateau", "zaremba"] = "cosine"
    """Learning-rate schedule after the warm-up. linear, cosine: decay to `lr_floor`. inverse_sqrt: 1 / sqrt(step). wsd: constant, then
    linear decay to `lr_floor` in the last `decay_share` of all steps. plateau: times `lr_factor` after every validation without
    improvement. zaremba: times `lr_factor` after every epoch from `flat_epochs` on (Zaremba et al. 2014)."""
    warmup_steps: int = Field(0, ge=0, le=10**12)
    """Steps of linear warm-up from 0."""
    lr_floor: float = Field(0.01, ge=0, le=1)
    """linear, cosine, wsd: final learning rate as a fraction of `lr`."""
    lr_factor: float = Field(0.25, gt=0, lt=1)
    """plateau, zaremba: decay factor of the learning rate."""
    flat_epochs: int = Field(4, ge=0, le=1_000_000)
    """zaremba: epochs with constant learning rate before the decay."""
    decay_share: float = Field(0.2, gt=0, le=1)
    """wsd: share of the decay phase in all steps, those of the warm-up included."""
    patience: int = Field(0, ge=0, le=1_000_000)
    """Early stopping: number of validations without improvement before training stops; 0: never. Needs a validation split."""
    epochs: int = Field(10, ge=1, le=1_000_000)
    """Number of passes over the training split."""
    max_steps: int | None = Field(None, ge=1, le=10**12)
    """Maximum number of updates."""
    validate_every: int | None = Field(None, ge=1, le=10**12)
    """Updates between validations. Default: once per epoch."""
    checkpoint_every: int | None = Field(None, ge=1, le=10**12)
    """Updates between checkpoints, in addition to the one at every validation."""
    keep: int = Field(2, ge=1, le=1_000_000)
    """Number of latest checkpoints to keep, in addition to the best."""
    milestones: tuple[Annotated[int, Field(ge=1, le=10**15)], ...] = Field((), max_length=1_000)
    """Words of training text, every epoch's counted, after which the model is kept as a folder: [1_000_000, 10_000_000] makes
    `run.dir`/train/milestones/1M and 10M."""
    samples: int = Field(3, ge=0, le=10_000)
    """Texts sampled at every validation, without a prompt and with the same random numbers each time."""
    log_every: int = Field(20, ge=1, le=10**12)
    """Updates between lines of metrics."""
    precision: Literal["float32", "float64", "medium", "bf16", "fp16", "auto"] = "float32"
    """Arithmetic. auto: bf16 where the devices of all processes have instructions for it, else float32. medium: float32 with matrix
    products that may round to bfloat16 (TF32 on GPUs). bf16, fp16: autocast, with weights and sums in float32; fp16 uses loss scaling,
    skips updates that overflow, and counts them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Training device; auto: GPUs if there is one for every process, else the CPU."""
    processes: int = Field(1, ge=1, le=1_024)
    """Number of processes that the pipeline starts with torchrun."""
    timeout_seconds: float = Field(600, gt=0, le=1e7)
    """Timeout of communication between processes; the training stops with an error that names the process."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "Train":
        if self.ema and self.optimizer == "nt-asgd":
            raise ValueError("ema and optimizer = nt-asgd both average the weights; choose one")
        if self.bitwise and self.accumulate > 1:
            raise ValueError("bitwise already runs each batch in parts; set accumulate to 1")
        if (total := sum(self.mix.values())) >= 1:
            raise ValueError(f"mix: shares of {total:g} in all leave nothing to dataset.dir; lower them")
        if self.schedule == "inverse_sqrt" and not self.warmup_steps:
            raise ValueError("schedule = inverse_sqrt decays from the end of the warm-up; set warmup_steps")
        return self
