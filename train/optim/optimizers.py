"""Optimizers: one for all weights, or two that share them."""

import torch
from torch import nn
from torch.optim import Optimizer

from packlm import config

from .muon import Muon


def build(settings: config.Train, model: nn.Module) -> list[Optimizer]:
    """The optimizers of `train.optimizer`, each weight in one of them; their learning rate is set before every step."""
    weights, lr, decay = list(model.parameters()), settings.lr, settings.weight_decay
    match settings.optimizer:
        case "adamw":
            return [torch.optim.AdamW(weights, lr, weight_decay=decay)]
        case "rmsprop":
            return [torch.optim.RMSprop(weights, lr, momentum=settings.momentum, weight_decay=decay)]
        case "muon":
            return _muon(model, lr, decay)
        case _:
            return [torch.optim.SGD(weights, lr, momentum=settings.momentum, weight_decay=decay)]


def _muon(model: nn.Module, lr: float, decay: float) -> list[Optimizer]:
    """Muon for the matrices of the recurrent layers, AdamW for word vectors, softmax and biases, as its authors advise. Steps of both
    have the same root mean square (Liu et al. 2025, section 2.2), so that one learning rate serves both."""
    matrices = [weight for name, weight in model.named_parameters() if name.startswith("recurrence.") and weight.ndim == 2]
    others = [weight for weight in model.parameters() if all(weight is not matrix for matrix in matrices)]
    return [
        Muon(matrices, lr, weight_decay=decay),
        torch.optim.AdamW(others, lr, weight_decay=decay),
    ]
