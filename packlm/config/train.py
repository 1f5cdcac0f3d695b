"""Settings of the section `train`: batches, optimizer, schedule and length of a training."""

from typing import Literal

from pydantic import Field, model_validator

from packlm.config.section import Section


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
