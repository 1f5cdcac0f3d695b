"""Optimizers by the name of `train.optimizer`: torch's are cases here, any other is a module of this folder with a `build` of its own."""

from importlib import import_module

import torch
from torch import nn
from torch.optim import Optimizer

from packlm import config


def build(settings: config.Train, model: nn.Module) -> list[Optimizer]:
    """The optimizers of `train.optimizer`, each weight in one of them; the trainer sets their learning rate before every step."""
    weights, lr, decay = list(model.parameters()), settings.lr, settings.weight_decay
    match settings.optimizer:
        case "sgd" | "nt-asgd":  # the averaging of nt-asgd is `averaging`'s
            return [torch.optim.SGD(weights, lr, momentum=settings.momentum, weight_decay=decay)]
        case "adamw":
            return [torch.optim.AdamW(weights, lr, weight_decay=decay)]
        case "rmsprop":
            return [torch.optim.RMSprop(weights, lr, momentum=settings.momentum, weight_decay=decay)]
        case name:
            optimizers: list[Optimizer] = import_module(f".{name}", __package__).build(settings, model)
            return optimizers
