"""The interface of a recurrent cell: everything that the program knows about `model.cell`.

A cell is one file in `packlm/model/cells/`. It states the weights of a layer, the shape of a state, and the equations of one time step in
two parts: `project` is what does not depend on the state, and is computed for all time steps at once; `step` is the rest. That suffices to
train it in every layout, to quantize it and to generate with it. Two things are optional, and for speed alone: `run`, a kernel over packed
rows with its own backward pass, and `torch_kernel`.

Shapes: R packed rows (`time_steps`), n of them in a time step, B segments, I input width, H units, C x S the state of a segment.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from packlm.model.products import type_under_autocast
from packlm.model.time_steps import TimeSteps


class Products(Protocol):
    """What a cell's equations are written with, whatever form the weights have: trainable, transposed or quantized."""

    def affine(self, rows: Tensor, weight: str, bias: str | None = None) -> Tensor:
        """rows [n, I] -> rows @ weight.T + bias, [n, O]. `weight` [O, I] and `bias` [O] are names of the layer's parameters."""
        ...

    def vector(self, name: str) -> Tensor:
        """The parameter of this name, which is no matrix."""
        ...

    def sigmoid(self, rows: Tensor) -> Tensor: ...


class LayerWeights:
    """The weights of a layer as they are trained, by the names of its parameters."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        """`tensors`: as in `layer.named_parameters()`, in that order; another tensor may stand in for one of them (weight drop)."""
        self.tensors = dict(tensors)

    def affine(self, rows: Tensor, weight: str, bias: str | None = None) -> Tensor:
        transposed = self.tensors[weight].T
        return rows @ transposed if bias is None else torch.addmm(self.tensors[bias], rows, transposed)

    def vector(self, name: str) -> Tensor:
        return self.tensors[name]

    def sigmoid(self, rows: Tensor) -> Tensor:
        return torch.sigmoid(rows)


class Cell(ABC):
    """A recurrent cell."""

    recurrent_weights: tuple[str, ...] = ("weight_hh_l0",)
    """Parameters that `model.weight_drop` acts on: the hidden-to-hidden matrices."""
    torch_kernel: Any = None
    """torch's kernel (`torch_kernels`), where there is one; it takes the layer's parameters in their order."""
    has_onednn_kernel = False
    """Whether torch's kernel over dense float32 blocks on CPUs is oneDNN's, and so the fastest."""

    @abstractmethod
    def layer(self, input_width: int, units: int) -> nn.Module:
        """The parameters of a layer, with their first values."""

    def state_shape(self, input_width: int, units: int) -> tuple[int, int]:
        """(C, S): a segment's state is C vectors of S values, zeros at its start."""
        return 1, units

    @abstractmethod
    def project(self, products: Products, rows: Tensor) -> Tensor:
        """The part of the equations that does not depend on the state: inputs [R, I] -> [R, ...]."""

    @abstractmethod
    def step(self, products: Products, projected: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One time step: rows of `project` [n, ...], state before [C, n, S] -> (output [n, H], state after [C, n, S])."""

    def run(self, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """One layer over packed rows.

        Args:
            rows: [R, I]; start: [C, B, S]; batch_sizes: [T] rows of each time step, never rising, on the CPU.

        Returns:
            (outputs [R, H], final state of each segment [C, B, S]), with gradients to weights, rows and start.
        """
        return self.unroll(weights, rows, start, batch_sizes)

    def unroll(self, products: Products, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """What `run` computes, by `project` and `step` alone."""
        steps, state = TimeSteps(batch_sizes, rows.device), start
        outputs, states = [], []
        for projected in steps.split(self.project(products, rows)):
            output, state = self.step(products, projected, state[:, : len(projected)])
            outputs.append(output)
            states.append(state)
        return torch.cat(outputs), steps.last(torch.cat(states, 1))


Kernel = Callable[[Any, LayerWeights, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
TypedKernel = Callable[[Any, LayerWeights, Tensor, Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor]]


def with_product_type(run: TypedKernel) -> Kernel:
    """Decorates a cell's `run` that takes the type of its matrix products too (`type_under_autocast`); everything else is computed in the
    type of the weights."""

    @wraps(run)
    def wrapped(cell: Any, weights: LayerWeights, rows: Tensor, start: Tensor, batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
        dtype, device = next(iter(weights.tensors.values())).dtype, rows.device
        product_type = type_under_autocast(dtype, device)
        with torch.autocast(device.type, enabled=False):
            return run(cell, weights, rows.to(dtype), start.to(dtype), batch_sizes, product_type)

    return wrapped
