"""Optimizers by the name of `train.optimizer`: torch's are cases here, any other is a module of this folder with a `build` of its own."""

from collections.abc import Iterable
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from packlm import config


def build(settings: config.Train, model: nn.Module, bfloat16: bool = False) -> list[Optimizer]:
    """The optimizers of `train.optimizer`, each weight in one of them; the trainer sets their learning rate before every step.

    `bfloat16`: whether an optimizer's own matrix products may be computed in that type.
    """
    weights, lr, decay = list(model.parameters()), settings.lr, settings.weight_decay
    match settings.optimizer:
        case "sgd" | "nt-asgd":  # the averaging of nt-asgd is `averaging`'s
            return [torch.optim.SGD(weights, lr, momentum=settings.momentum, weight_decay=decay)]
        case "adamw":
            return [adamw(weights, lr, decay)]
        case "rmsprop":
            return [torch.optim.RMSprop(weights, lr, momentum=settings.momentum, weight_decay=decay)]
        case name:
            optimizers: list[Optimizer] = import_module(f".{name}", __package__).build(settings, model, bfloat16)
            return optimizers


def adamw(weights: Iterable[Tensor], lr: float, weight_decay: float) -> Optimizer:
    """AdamW by torch's fused kernel, where the device has one: one pass over weights and moments instead of seven, a tenth of the time."""
    weights = list(weights)
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    return torch.optim.AdamW(weights, lr, weight_decay=weight_decay, fused=fused)
