"""Settings of the section `model`: cell, size and dropout of the network."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from packlm.config.section import Section

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
