"""A fake device: its tensors claim to be on torch's `meta` device, and are computed on the CPU.

Most errors that only occur on GPUs are of one kind: an operation on tensors of the CPU and of the GPU. Within `fake_device` this is an
error, as it is on a GPU. Synchronizations, in which the CPU waits for the device, are counted by the function of ours that asks for them.
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
OURS = Path(__file__).resolve().parents[1] / "train"
MIXED = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_"}
"""Operations that take tensors of both devices: copies, and indices that may be on the CPU."""
SYNCHRONIZING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique_consecutive",
    "aten::_unique2",
    "aten::equal",
}
"""Operations whose result the CPU has to know before it continues: numbers, and shapes that depend on them."""

Synchronizations = Counter[str]
"""How often the CPU waited for the device, by `file:function`."""
_COUNTS: Synchronizations = Counter()


class FakeTensor(Tensor):
    """A tensor that claims to be on `DEVICE`; `inner` holds its numbers."""

    inner: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, inner: Tensor) -> "FakeTensor":
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype, device=DEVICE
        )
        tensor.inner = inner
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _count_synchronization()
        return self.inner.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("numpy reads tensors on the CPU only")


class _Mode(TorchDispatchMode):
    """Creates tensors on `DEVICE`, and moves others there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        fake = kwargs.get("device") == DEVICE or any(isinstance(tensor, FakeTensor) for tensor in _tensors([*args, *kwargs.values()]))
        return _run(func, args, kwargs) if fake else func(*args, **kwargs)


def _run(func, args, kwargs):
    name, device = func._schema.name, kwargs.get("device")
    tensors = list(_tensors([*args, *kwargs.values()]))
    from_device = any(isinstance(tensor, FakeTensor) for tensor in tensors)
    if from_device and name not in MIXED:
        on_cpu = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, FakeTensor) and tensor.ndim]
        assert not on_cpu, f"{func} of tensors on the device and of {on_cpu} on the CPU"
    to_device = from_device if device is None else device == DEVICE
    indices = _tensors(args[1]) if name.startswith("aten::index") and isinstance(args[1], list | tuple) else []
    mask = any(isinstance(tensor, FakeTensor) and tensor.dtype == torch.bool for tensor in indices)
    copy_to_cpu = name == "aten::copy_" and isinstance(args[1], FakeTensor) and not isinstance(args[0], FakeTensor)
    if from_device and (name in SYNCHRONIZING or not to_device or mask or copy_to_cpu):
        _count_synchronization()
    inner_kwargs = {key: _each(_inner, value) for key, value in kwargs.items()} | ({} if device is None else {"device": CPU})
    with _disable_current_modes():
        result = func(*_each(_inner, args), **inner_kwargs)
        if to_device != from_device and name == "aten::_to_copy":
            result = result.clone()  # devices never share memory
    if not to_device:
        return result
    result = _each(lambda value: FakeTensor(value) if isinstance(value, Tensor) else value, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if from_device and device is None else result


def _tensors(values) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _each(function, value):
    """The function of a value, or of each item of a list or tuple."""
    if isinstance(value, list | tuple):
        results = [_each(function, item) for item in value]
        return results if isinstance(value, list) else tuple(results)
    return function(value)


def _inner(value):
    return value.inner if isinstance(value, FakeTensor) else value


def _count_synchronization() -> None:
    ours = [frame for frame in traceback.extract_stack() if Path(frame.filename).parent == OURS]
    _COUNTS[f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "other"] += 1


def _module_to(module: nn.Module, *args, **kwargs) -> nn.Module:
    """`Module.to`; torch's own would untie tied weights, because their class changes."""
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    if device != DEVICE:
        return _MODULE_TO(module, *args, **kwargs)
    moved = {weight: nn.Parameter(weight.detach().to(DEVICE, dtype)) for weight in module.parameters()}
    for part in module.modules():
        part._parameters.update({name: weight if weight is None else moved[weight] for name, weight in part._parameters.items()})
    return module


def _tensor(data, *args, device=None, **kwargs) -> Tensor:
    """`torch.tensor`; torch's own bypasses the dispatch."""
    tensor = _TENSOR(data, *args, **kwargs)
    return tensor if device is None else tensor.to(device)


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a device type, called with the CPU's in place of the fake device's."""
    return lambda kind="cuda", *args, **kwargs: function("cpu" if kind == "meta" else kind, *args, **kwargs)


_MODULE_TO, _TENSOR = nn.Module.to, torch.tensor


@contextmanager
def fake_device() -> Iterator[Synchronizations]:
    """Within the block `DEVICE` is a device like others; yields the counts of synchronizations."""
    with pytest.MonkeyPatch.context() as patch, _Mode():
        _COUNTS.clear()
        patch.setattr(nn.Module, "to", _module_to)
        patch.setattr(torch, "tensor", _tensor)
        # Tensors of inference mode cannot be wrapped.
        patch.setattr(torch.inference_mode, "__enter__", torch.no_grad.__enter__)
        patch.setattr(torch.inference_mode, "__exit__", torch.no_grad.__exit__)
        for owner, name in ((torch, "autocast"), (torch, "is_autocast_enabled"), (torch, "get_autocast_dtype"), (torch.amp, "GradScaler")):
            patch.setattr(owner, name, _on_cpu(getattr(owner, name)))
        yield _COUNTS
