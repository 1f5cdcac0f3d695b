"""A recurrent language model, exported by packlm, for Hugging Face transformers; packlm itself is not needed to use it.

    tokenizer = AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

The names of the weights are those of packlm. Nothing is dropped in training mode.

Shapes: B texts, T time steps, V vocabulary; of a layer: I input width, H units, and a state [C, B, S], C vectors of S values for each text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

State = tuple[Tensor, ...]
"""Of each layer [C, B, S]."""
MLP_WINDOW, MOGRIFIER_ROUNDS = 4, 5


class PacklmConfig(PretrainedConfig):
    """The shape of a model."""

    model_type = "packlm"

    def __init__(
        self, cell: str = "lstm", vocab_size: int = 2, embedding_size: int = 1, hidden_sizes: Sequence[int] = (1,), residual: bool = False,
        cutoffs: Sequence[int] = (), tie_word_embeddings: bool = True, **kwargs: Any,
    ):  # fmt: skip
        """`hidden_sizes`: units of each layer; `residual`: each layer's input is added to its output; `cutoffs`: of an adaptive softmax."""
        self.cell, self.vocab_size, self.embedding_size, self.hidden_sizes = cell, vocab_size, embedding_size, list(hidden_sizes)
        self.residual, self.cutoffs = residual, list(cutoffs)
        self.num_hidden_layers, self.hidden_size = len(self.hidden_sizes), self.hidden_sizes[-1]
        super().__init__(**kwargs)
        self.tie_word_embeddings = tie_word_embeddings


@dataclass
class PacklmOutput(ModelOutput):
    """What a model returns."""

    loss: Tensor | None = None
    """Mean negative log-likelihood of the labels, in nats."""
    logits: Tensor | None = None
    """[B, T, V]."""
    state: State | None = None
    """The state of each layer after the last token, to read on from."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Embeddings [B, T, I], then the outputs [B, T, H] of each layer."""


# Each layer has `state_shape`, (C, S), and `step`: inputs [B, I], state [C, B, S] -> outputs [B, H], state [C, B, S].


def products(layer: Any, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """W x + b and U h + b', by torch's names of the weights."""
    return linear(x, layer.weight_ih_l0, layer.bias_ih_l0), linear(h, layer.weight_hh_l0, layer.bias_hh_l0)


class RnnLayer(nn.RNN):
    """Elman (1990)."""

    def __init__(self, inputs: int, units: int, nonlinearity: str = "tanh"):
        super().__init__(inputs, units, nonlinearity=nonlinearity)
        self.state_shape, self.activation = (1, units), getattr(torch, nonlinearity)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        from_x, from_h = products(self, x, state[0])
        h = self.activation(from_x + from_h)
        return h, h[None]


class ReluRnnLayer(RnnLayer):
    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units, "relu")


class GruLayer(nn.GRU):
    """Cho et al. (2014), as torch computes it."""

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units)
        self.state_shape = (1, units)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = state[0]
        (r_x, z_x, n_x), (r_h, z_h, n_h) = (product.chunk(3, dim=1) for product in products(self, x, h))
        n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        h = n + torch.sigmoid(z_x + z_h) * (h - n)
        return h, h[None]


class LstmLayer(nn.LSTM):
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000); its state is (h, c)."""

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units)
        self.state_shape = (2, units)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        from_x, from_h = products(self, x, h)
        i, f, g, o = (from_x + from_h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, torch.stack([h, c])


class MogrifierLayer(LstmLayer):
    """Melis et al. (2020): input and state gate one another in turn before each step of an LSTM."""

    def __init__(self, inputs: int, units: int):
        super().__init__(inputs, units)
        shapes = [(inputs, units) if number % 2 == 0 else (units, inputs) for number in range(MOGRIFIER_ROUNDS)]
        self.gates = nn.ParameterList(nn.Parameter(torch.zeros(shape)) for shape in shapes)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state
        for number, gate in enumerate(self.gates):
            if number % 2 == 0:
                x = 2 * torch.sigmoid(linear(h, gate)) * x
            else:
                h = 2 * torch.sigmoid(linear(x, gate)) * h
        return super().step(x, torch.stack([h, c]))


class QrnnLayer(nn.Module):
    """Bradbury et al. (2017) with windows of two inputs; its state is c and the input before."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros(3 * units, 2 * inputs))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(3 * units))
        self.state_shape = (1, units + inputs)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        c, before = state[0].split([state.shape[2] - x.shape[1], x.shape[1]], dim=1)
        z, f, o = linear(torch.cat([x, before], 1), self.weight_ih_l0, self.bias_ih_l0).chunk(3, dim=1)
        c = torch.lerp(torch.tanh(z), c, torch.sigmoid(f))
        return torch.sigmoid(o) * c, torch.cat([c, x], 1)[None]


class SruLayer(nn.Module):
    """Lei et al. (2018, equations 1 to 4); its state is c."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros((3 if inputs == units else 4) * units, inputs))
        self.weight_c_l0 = nn.Parameter(torch.zeros(2 * units))
        self.bias_l0 = nn.Parameter(torch.zeros(2 * units))
        self.state_shape = (1, units)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        c, (v_f, v_r), (b_f, b_r) = state[0], self.weight_c_l0.chunk(2), self.bias_l0.chunk(2)
        z, f_x, r_x, *projected = linear(x, self.weight_ih_l0).split(c.shape[1], dim=1)
        f, r = torch.sigmoid(f_x + v_f * c + b_f), torch.sigmoid(r_x + v_r * c + b_r)
        c = torch.lerp(z, c, f)
        return torch.lerp(projected[0] if projected else x, c, r), c[None]


class MlpLayer(nn.Module):
    """Bengio et al. (2003): a window of inputs, without recurrence; its state are the inputs before, newest first."""

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.zeros(units, MLP_WINDOW * inputs))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(units))
        self.state_shape = (MLP_WINDOW - 1, inputs)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        window = torch.cat([x[None], state])
        return torch.tanh(linear(window.transpose(0, 1).flatten(1), self.weight_ih_l0, self.bias_ih_l0)), window[:-1]


LAYERS = {
    "rnn": RnnLayer, "rnn_relu": ReluRnnLayer, "gru": GruLayer, "lstm": LstmLayer, "mogrifier": MogrifierLayer, "qrnn": QrnnLayer,
    "sru": SruLayer, "mlp": MlpLayer,
}  # fmt: skip
"""The layers by `cell`."""


def read(layer: Any, rows: Tensor, state: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Runs a layer over inputs [B, T, I] -> outputs [B, T, H], final state; a position that the mask [B, T] excludes leaves the state as it
    is."""
    if mask is None and type(layer) is LstmLayer:
        outputs, (h, c) = nn.LSTM.forward(layer, rows.transpose(0, 1), (state[:1].contiguous(), state[1:].contiguous()))
        return outputs.transpose(0, 1), torch.cat([h, c])
    if mask is None and isinstance(layer, RnnLayer | GruLayer):
        outputs, state = layer(rows.transpose(0, 1), state.contiguous())
        return outputs.transpose(0, 1), state
    steps = []
    for time in range(rows.shape[1]):
        output, after = layer.step(rows[:, time], state)
        state = after if mask is None else after.where(mask[:, time, None], state)
        steps.append(output)
    return torch.stack(steps, 1), state


class PacklmLayers(nn.Module):
    """A stack of layers."""

    def __init__(self, config: PacklmConfig):
        super().__init__()
        shapes = list(pairwise([config.embedding_size, *config.hidden_sizes]))
        self.layers = nn.ModuleList(LAYERS[config.cell](inputs, units) for inputs, units in shapes)
        self.shortcuts = nn.ModuleList(
            nn.Identity() if inputs == units else nn.Linear(inputs, units, bias=False) for inputs, units in shapes if config.residual
        )

    def zero_state(self, rows: Tensor) -> State:
        """The state of each layer before anything was read, for inputs [B, T, I]."""
        shapes: list[tuple[int, int]] = [layer.state_shape for layer in self.layers]  # type: ignore[misc]
        return tuple(rows.new_zeros(vectors, len(rows), size) for vectors, size in shapes)

    def forward(self, rows: Tensor, state: State | None, mask: Tensor | None) -> tuple[tuple[Tensor, ...], State]:
        """Inputs [B, T, I] -> (the inputs and the outputs of each layer, the final state of each layer)."""
        hidden, finals = [rows], []
        for number, (layer, start) in enumerate(zip(self.layers, state or self.zero_state(rows), strict=True)):
            outputs, final = read(layer, rows, start, mask)
            rows = outputs + self.shortcuts[number](rows) if self.shortcuts else outputs
            hidden.append(rows)
            finals.append(final)
        return tuple(hidden), tuple(finals)


class PacklmSoftmax(nn.Linear):
    """The logits of the next token, full or (Grave et al. 2017) adaptive: then they are log-probabilities."""

    def __init__(self, config: PacklmConfig):
        super().__init__(config.hidden_size, config.vocab_size)
        self.cutoffs = config.cutoffs
        if self.cutoffs:
            self.clusters = nn.Linear(config.hidden_size, len(self.cutoffs))

    def forward(self, rows: Tensor) -> Tensor:
        logits = super().forward(rows)
        if not self.cutoffs:
            return logits
        head, *tails = logits.tensor_split(self.cutoffs, dim=-1)
        log_head = torch.cat([head, self.clusters(rows)], -1).log_softmax(-1)
        log_clusters = log_head[..., self.cutoffs[0] :].split(1, dim=-1)
        parts = [tail.log_softmax(-1) + log_cluster for tail, log_cluster in zip(tails, log_clusters, strict=True)]
        return torch.cat([log_head[..., : self.cutoffs[0]], *parts], -1)


class PacklmForCausalLM(PreTrainedModel, GenerationMixin):
    """A recurrent language model. It keeps a state, whose size does not depend on the length of the text."""

    config_class = PacklmConfig
    main_input_name = "input_ids"
    _tied_weights_keys = {"projection.weight": "embedding.weight"}  # noqa: RUF012
    _keys_to_ignore_at_inference = ("state",)
    _is_stateful = True

    def __init__(self, config: PacklmConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.recurrence = PacklmLayers(config)
        self.projection = PacklmSoftmax(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.projection

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, state: State | None = None, labels: Tensor | None = None,
        use_cache: bool = True, output_hidden_states: bool = False, logits_to_keep: int = 0, return_dict: bool = True, **kwargs: Any,
    ) -> PacklmOutput | tuple[Any, ...]:  # fmt: skip
        """Reads texts.

        Args:
            input_ids: [B, T].
            attention_mask: [B, at least T], of which the last T columns count: positions with 0 are skipped, on either side.
            state: what each text continues from, as an earlier call returned it; by default nothing precedes it.
            labels: [B, T]; the token at t is predicted from those before it, and -100 is not counted.
            logits_to_keep: logits of so many last positions; 0 for all.
        """
        mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :].bool()
        if mask is not None and bool(mask.all()):
            mask = None
        hidden, final = self.recurrence(self.embedding(input_ids), state, mask)
        logits = self.projection(hidden[-1][:, -logits_to_keep:])
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        output = PacklmOutput(loss, logits, final if use_cache else None, hidden if output_hidden_states else None)
        return output if return_dict else output.to_tuple()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, state: State | None = None, attention_mask: Tensor | None = None, is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """The tokens to be read next: all, or after the first step with a state the last one."""
        new = input_ids if state is None or is_first_iteration else input_ids[:, -1:]
        use_cache = kwargs.get("use_cache") is not False
        return {"input_ids": new, "state": state, "attention_mask": attention_mask, "use_cache": use_cache}

    def _update_model_kwargs_for_generation(self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if outputs.state is not None:
            model_kwargs["state"] = outputs.state
        return model_kwargs

    @staticmethod
    def _reorder_cache(state: State, beam_idx: Tensor) -> State:
        return tuple(part.index_select(1, beam_idx) for part in state)
