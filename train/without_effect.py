"""Settings that change nothing beside others: a training says so at its start."""

from packlm.config import Config
from packlm.model.cells import CELLS


def without_effect(config: Config) -> list[str]:
    """`train.momentum (train.optimizer = adamw)` for each setting that is not at its default and has no effect."""
    model, train = config.model, config.train
    positions = [model.dropout_input, model.dropout_output, *[model.dropout_hidden] * (model.layers > 1)]
    segments, optimizer, schedule = (f"train.{key} = {getattr(train, key)}" for key in ("segments", "optimizer", "schedule"))
    streams, decaying = train.segments == "streams", train.schedule in ("linear", "cosine", "wsd")
    rules = {
        "model.dropout": (None in positions, "dropout_input, dropout_hidden and dropout_output override it"),
        "model.dropout_hidden": (model.layers > 1, "there is one layer"),
        "model.weight_drop": (bool(CELLS[model.cell].recurrent_weights), f"model.cell = {model.cell} has no recurrent matrix"),
        "model.locked": (any(map(model.dropout_before, range(model.layers + 1))), "there is no dropout of units"),
        "train.reset": (streams, segments),
        "train.streams": (streams, segments),
        "train.window": (streams, segments),
        "train.window_drawn": (streams, segments),
        "train.global_batch_tokens": (not streams, segments),
        "train.grouping": (train.segments == "sentences", segments),
        "train.on_overlong": (train.segments == "sentences", segments),
        "train.momentum": (train.optimizer in ("sgd", "nt-asgd", "rmsprop"), optimizer),
        "train.nt_interval": (train.optimizer == "nt-asgd", optimizer),
        "train.lr_floor": (decaying, schedule),
        "train.lr_factor": (train.schedule in ("plateau", "zaremba"), schedule),
        "train.flat_epochs": (train.schedule == "zaremba", schedule),
        "train.decay_share": (train.schedule == "wsd", schedule),
    }
    return [f"{name} ({reason})" for name, (effective, reason) in rules.items() if not effective and _is_changed(config, name)]


def _is_changed(config: Config, name: str) -> bool:
    section, key = name.split(".")
    settings = getattr(config, section)
    default = type(settings).model_fields[key].get_default(call_default_factory=True)
    return bool(getattr(settings, key) != default)
