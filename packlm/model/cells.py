"""One recurrent layer: its weights, and torch's kernels over them.

A layer is one of torch's own modules, so its weights are named and laid out as everybody's, but its weights are handed to the kernels
one by one: so another tensor can stand in for one of them (weight drop), which the modules themselves would not notice.

Shapes: B segments, R rows, T time steps, I input width, H units, C parts of a state (LSTM: h and c; else h).
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from packlm.model import kernels, mogrifier
from packlm.model.kernels import Weights

CELLS: dict[str, Callable[[int, int], nn.RNNBase]] = {
    "rnn": nn.RNN, "rnn_relu": partial(nn.RNN, nonlinearity="relu"), "gru": nn.GRU, "lstm": nn.LSTM, "mogrifier": mogrifier.Mogrifier,
}  # fmt: skip
_KERNELS: dict[str, Any] = {"rnn": torch._VF.rnn_tanh, "rnn_relu": torch._VF.rnn_relu, "gru": torch._VF.gru, "lstm": torch._VF.lstm}


def num_parts(cell: str) -> int:
    """C: how many tensors make up a state."""
    return 2 if cell in ("lstm", "mogrifier") else 1


def weights_of(layer: nn.Module) -> Weights:
    """A layer's weights and biases."""
    return tuple(layer.get_parameter(name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))  # type: ignore[return-value]


def run_steps(cell: str, layer: nn.Module, weights: Weights, rows: Tensor, start: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Our recurrence over packed rows: [R, I], start [C, B, H], sizes [T] -> rows [R, H], final states [C, B, H]."""
    if isinstance(layer, mogrifier.Mogrifier):
        return mogrifier.run(layer, weights, rows, start, sizes)
    return kernels.run(cell, rows, start, weights, sizes)


def _precision_of_kernel(device: torch.device, dense: bool) -> Any:
    """Context in which a kernel of torch runs: on CPUs autocast is off, except for oneDNN's dense kernel in bfloat16.

    That one needs a processor with instructions for bfloat16. oneDNN refuses to train an LSTM in half precision, with AVX512_FP16 too,
    and torch's own kernels are slower in a 16-bit type than in float32.
    """
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return nullcontext()
    bfloat16 = torch.get_autocast_dtype("cpu") == torch.bfloat16
    return nullcontext() if dense and bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.autocast("cpu", enabled=False)


def run_packed(cell: str, weights: Weights, rows: Tensor, start: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """torch's kernel over a PackedSequence: the same arguments and results."""
    with _precision_of_kernel(rows.device, dense=False):
        output, *final = _KERNELS[cell](rows, sizes, _parts(start), weights, True, 1, 0.0, torch.is_grad_enabled(), False)
    return output, torch.cat(final)


def run_dense(cell: str, weights: Weights, rows: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """torch's kernel over segments of one length: rows [T, B, I], start [C, B, H] -> rows [T, B, H], final states [C, B, H]."""
    with _precision_of_kernel(rows.device, dense=True):
        output, *final = _KERNELS[cell](rows, _parts(start), weights, True, 1, 0.0, torch.is_grad_enabled(), False, False)
    return output, torch.cat(final)


def _parts(state: Tensor) -> tuple[Tensor, ...] | Tensor:
    """[C, B, H] as torch's kernels take it: (h, c) or h, each [1, B, H]."""
    parts = tuple(part.contiguous() for part in state.split(1))
    return parts if len(parts) > 1 else parts[0]
