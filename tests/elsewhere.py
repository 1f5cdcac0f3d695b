"""A device that is not there: its tensors say that they are elsewhere (on torch's `meta` device), and are computed on the CPU.

What goes wrong on GPUs alone is mostly of one kind: a tensor that was left on the CPU meets one of the GPU. Within `elsewhere` that is an
error, as it is there. And what makes the processor wait for the device is counted by where it was asked for.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, return_and_correct_aliasing

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
OURS = {Path(__file__).resolve().parents[1] / room for room in ("train", "serve")}
MEET = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_"}
"""What takes tensors of both: copies, and indices that may be on the CPU."""
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_consecutive", "aten::_unique2", "aten::equal"}
"""What the processor has to know before it goes on: numbers, and shapes that depend on them."""

Waits = Counter[str]
"""How often the processor waited, by `file:function`."""
_WAITED: Waits = Counter()


class Elsewhere(Tensor):
    """A tensor that says that it is on `DEVICE`; `inner` holds its numbers."""

    inner: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _waited()
        return self.inner.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("numpy knows the tensors of the CPU alone")


class _Mode(TorchDispatchMode):
    """Makes the tensors that are asked for on `DEVICE`, and brings others there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = kwargs.get("device") == DEVICE or any(isinstance(tensor, Elsewhere) for tensor in _tensors([*args, *kwargs.values()]))
        return _run(func, args, kwargs) if ours else func(*args, **kwargs)


def _run(func, args, kwargs):
    name, device = func._schema.name, kwargs.get("device")
    tensors = list(_tensors([*args, *kwargs.values()]))
    there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if there and name not in MEET:
        here = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim]
        assert not here, f"{func} of tensors elsewhere and of {here} on the CPU"
    goes = there if device is None else device == DEVICE
    places = _tensors(args[1]) if name.startswith("aten::index") and isinstance(args[1], list | tuple) else []
    masks = any(isinstance(tensor, Elsewhere) and tensor.dtype == torch.bool for tensor in places)
    comes = name == "aten::copy_" and isinstance(args[1], Elsewhere) and not isinstance(args[0], Elsewhere)
    if there and (name in WAITS or not goes or masks or comes):
        _waited()
    inner_kwargs = {key: _each(_inner, value) for key, value in kwargs.items()} | ({} if device is None else {"device": CPU})
    with _disable_current_modes():
        made = func(*_each(_inner, args), **inner_kwargs)
        if goes != there and name == "aten::_to_copy":
            made = made.clone()  # another device never shares memory
    if not goes:
        return made
    made = _each(lambda value: Elsewhere(value) if isinstance(value, Tensor) else value, made)
    return return_and_correct_aliasing(func, args, kwargs, made) if there and device is None else made


def _tensors(values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _each(function, value):
    """The function of a value, or of each in a list of them."""
    if isinstance(value, list | tuple):
        made = [_each(function, item) for item in value]
        return made if isinstance(value, list) else tuple(made)
    return function(value)


def _inner(value):
    return value.inner if isinstance(value, Elsewhere) else value


def _waited() -> None:
    ours = [frame for frame in traceback.extract_stack() if Path(frame.filename).parent in OURS]
    _WAITED[f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "elsewhere"] += 1


def _module_to(module: nn.Module, *args, **kwargs) -> nn.Module:
    """`Module.to`, which would untie tied weights whose class changes."""
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    if device != DEVICE:
        return _MODULE_TO(module, *args, **kwargs)
    moved = {weight: nn.Parameter(weight.detach().to(DEVICE, dtype)) for weight in module.parameters()}
    for part in module.modules():
        part._parameters.update({name: weight if weight is None else moved[weight] for name, weight in part._parameters.items()})
    return module


def _tensor(data, *args, device=None, **kwargs) -> Tensor:
    """`torch.tensor`, which fills tensors out of sight."""
    made = _TENSOR(data, *args, **kwargs)
    return made if device is None else made.to(device)


def _of_the_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is asked for one kind of device; `meta` has none of its own."""
    return lambda kind="cuda", *args, **given: function("cpu" if kind == "meta" else kind, *args, **given)


_MODULE_TO, _TENSOR = nn.Module.to, torch.tensor


@contextmanager
def elsewhere() -> Iterator[Waits]:
    """Within the block `DEVICE` is a device like others; yields what the processor waited for."""
    with pytest.MonkeyPatch.context() as patch, _Mode():
        _WAITED.clear()
        patch.setattr(nn.Module, "to", _module_to)
        patch.setattr(torch, "tensor", _tensor)
        # A tensor that is made in inference mode cannot be made to say where it is.
        patch.setattr(torch.inference_mode, "__enter__", torch.no_grad.__enter__)
        patch.setattr(torch.inference_mode, "__exit__", torch.no_grad.__exit__)
        for owner, name in ((torch, "autocast"), (torch, "is_autocast_enabled"), (torch, "get_autocast_dtype"), (torch.amp, "GradScaler")):
            patch.setattr(owner, name, _of_the_cpu(getattr(owner, name)))
        yield _WAITED
