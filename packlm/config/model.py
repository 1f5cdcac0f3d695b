"""Section `model`: cell, size and dropout of the network."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from packlm.config.section import Section

Rate = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=1_000_000)]
MAX_WEIGHTS = 10**12
"""Far beyond the largest recurrent networks that have been trained (10**11 weights); more is a typing error."""


class Model(Section):
    cell: Literal["rnn", "rnn_relu", "gru", "lstm", "mogrifier", "qrnn", "sru", "mlp"] = "lstm"
    """The recurrent cell: Elman's (tanh, or ReLU), gated recurrent unit, long short-term memory, an LSTM whose inputs and states gate
    one another (Melis et al. 2020), quasi-recurrent network (Bradbury et al. 2017), simple recurrent unit (Lei et al. 2018); or, without
    recurrence, a feed-forward network over the last four tokens (Bengio et al. 2003)."""
    layers: int = Field(2, ge=1, le=1_000)
    """Number of recurrent layers."""
    hidden: Width | Annotated[tuple[Width, ...], Field(max_length=1_000)] = 256
    """Hidden units of every layer, or a list with the units of each."""
    embedding: Width | None = None
    """Embedding size. Default: the size of the last layer."""
    tied: bool = True
    """Ties the softmax weights to the embedding (Inan et al. 2017; Press and Wolf 2017)."""
    cutoffs: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000_000)], ...], Field(max_length=10)] = ()
    """Adaptive softmax (Grave et al. 2017): the ids at which clusters of rare ids begin, such as [2000] or [1000, 4000] for a vocabulary of
    10,000 words; trains faster. Default: the full softmax."""
    residual: Literal["none", "add", "project"] = "none"
    """Residual connections: each layer adds its input, x + layer(dropout(x)) (Wu et al. 2016, section 3.1). add needs
    an embedding and layers of one width; project multiplies the input by a matrix where the widths differ."""
    dropout: Rate = 0.2
    """Dropout rate on embeddings, between layers and before the softmax (Zaremba et al. 2014); `dropout_input`, `dropout_hidden` and
    `dropout_output` override it."""
    dropout_input: Rate | None = None
    """Dropout rate on embeddings (AWD-LSTM's dropouti). Default: `dropout`."""
    dropout_hidden: Rate | None = None
    """Dropout rate between layers (AWD-LSTM's dropouth). Default: `dropout`."""
    dropout_output: Rate | None = None
    """Dropout rate before the softmax (AWD-LSTM's dropout). Default: `dropout`."""
    dropout_embedding: Rate = 0.0
    """Embedding dropout: rate at which word types are dropped for a whole step (Gal and Ghahramani 2016; AWD-LSTM's dropoute)."""
    weight_drop: Rate = 0.0
    """DropConnect rate on the recurrent weights, per step (Merity et al. 2017; AWD-LSTM's wdrop)."""
    locked: bool = False
    """Variational (locked) dropout: the same mask at every time step of a segment (Gal and Ghahramani 2016; Merity et al. 2017)."""

    def dropout_before(self, layer: int) -> float:
        """Dropout rate on the input of a layer; `layer == layers` is the softmax."""
        rate = self.dropout_input if layer == 0 else self.dropout_output if layer == self.layers else self.dropout_hidden
        return self.dropout if rate is None else rate

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout is on."""
        return any((*map(self.dropout_before, range(self.layers + 1)), self.dropout_embedding, self.weight_drop))

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden units of each layer."""
        return (self.hidden,) * self.layers if isinstance(self.hidden, int) else self.hidden

    @property
    def embedding_width(self) -> int:
        return self.embedding or self.widths[-1]

    @model_validator(mode="after")
    def _check_widths(self) -> "Model":
        if len(self.widths) != self.layers:
            raise ValueError(f"hidden lists {len(self.widths)} widths for layers = {self.layers}")
        if any(next <= cutoff for cutoff, next in pairwise(self.cutoffs)):
            raise ValueError(f"cutoffs = {list(self.cutoffs)} must ascend")
        inputs = (self.embedding_width, *self.widths)
        if (weights := sum(4 * width * (width + below) for below, width in zip(inputs, self.widths, strict=False))) > MAX_WEIGHTS:
            raise ValueError(f"layers and hidden make about {weights:.0e} weights, and at most {MAX_WEIGHTS:.0e} are possible; lower them")
        if self.residual == "add" and len(set(inputs)) > 1:
            raise ValueError(
                f'residual = "add" needs an embedding and layers of one width: embedding = {self.embedding_width}, '
                f'layers {", ".join(map(str, self.widths))}; make them equal or set residual = "project"'
            )
        if self.tied and self.embedding_width != self.widths[-1]:
            raise ValueError(
                f"tied = true needs an embedding of the size of the last layer: embedding = {self.embedding_width}, "
                f"last layer {self.widths[-1]}; make them equal or set tied = false"
            )
        return self
