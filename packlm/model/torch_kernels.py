"""torch's own recurrent kernels (oneDNN, cuDNN), called with weights one by one: so another tensor can stand in for one of them (weight
drop), which modules like nn.LSTM would not notice.

Shapes: R packed rows, T time steps, B segments, I input width, H units, C vectors of a state (LSTM: h and c; else h).
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from packlm.model.cell import LayerWeights
from packlm.model.products import has_bfloat16


def run_packed(kernel: Any, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """A kernel over a PackedSequence; arguments and results as of `Cell.run`."""
    tensors = tuple(weights.tensors.values())
    with _autocast(rows.device, dense=False):
        output, *final = kernel(rows, batch_sizes, _unstacked(start), tensors, True, 1, 0.0, torch.is_grad_enabled(), False)
    return output, torch.cat(final)


def run_blocks(kernel: Any, weights: LayerWeights, rows: Tensor, start: Tensor, blocks: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """A kernel over dense blocks of packed rows, each starting from the states in which the block before ended.

    Args:
        rows: [R, I]; start: [C, B, H]; blocks: (time steps, segments) of each, with ever fewer segments.

    Returns:
        (outputs [R, H], final state of each segment [C, B, H])
    """
    tensors, state, offset = tuple(weights.tensors.values()), start, 0
    outputs, finals = [], []
    for steps, segments in blocks:
        finals.append(state[:, segments:])  # of the segments that ended with the block before
        block = rows[offset : offset + steps * segments].view(steps, segments, -1)
        with _autocast(rows.device, dense=True):
            arguments = (_unstacked(state[:, :segments]), tensors, True, 1, 0.0, torch.is_grad_enabled(), False, False)
            output, *final = kernel(block, *arguments)
        state = torch.cat(final)
        outputs.append(output.reshape(steps * segments, -1))
        offset += steps * segments
    finals.append(state)
    return _concatenate(outputs, 0), _concatenate(finals[::-1], 1)


def _autocast(device: torch.device, dense: bool) -> Any:
    """Context in which a kernel runs: on CPUs autocast is off, except for oneDNN's dense kernel in bfloat16.

    That one needs a processor with instructions for bfloat16. oneDNN refuses to train an LSTM in half precision, with AVX512_FP16 too,
    and torch's own kernels are slower in a 16-bit type than in float32.
    """
    if device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return nullcontext()
    bfloat16 = torch.get_autocast_dtype("cpu") == torch.bfloat16
    return nullcontext() if dense and bfloat16 and has_bfloat16(device) else torch.autocast("cpu", enabled=False)


def _unstacked(state: Tensor) -> tuple[Tensor, ...] | Tensor:
    """[C, B, H] as kernels take it: (h, c) or h, each [1, B, H]."""
    parts = tuple(part.contiguous() for part in state.split(1))
    return parts if len(parts) > 1 else parts[0]


def _concatenate(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
