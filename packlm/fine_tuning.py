"""Fine-tuning: the settings that a training takes from the model `train.init` that it continues. Read without torch."""

from collections.abc import Iterable

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.config import Config, Model, Train
from packlm.model import address
from packlm.model import info as model_info
from packlm.model.info import ModelInfo

SHAPE = ("cell", "layers", "hidden", "embedding", "tied", "residual", "cutoffs")
"""Settings of `model` that decide the shapes of the weights; the others, such as dropout, may differ from those of `train.init`."""
LR_SHARE = 0.5
"""Default learning rate of fine-tuning, as a share of the one that the model was trained with. In three epochs of 33,000 tokens of similar
text, and of 93,000 of other text, three tenths gave 18 and 42 % more perplexity than the whole rate, and a tenth 56 and 104 % more."""


def resolve(config: Config) -> Config:
    """The configuration with what the model `train.init` decides and nobody has set: tokenizer, `model.*`, `train.segments`,
    `train.reset`, and half of the learning rate that it was trained with. Without `train.init` it is as it was.

    Raises:
        RequestError: there is no such model, or another shape is set.
    """
    if not config.train.init:
        return config
    address.check(config.train.init)

    from packlm import tracking  # which takes longer than to refuse a wrong name

    folder = tracking.folder_of(config.train.init, config.tracking)
    info = model_info.read(folder)
    set_here = config.model.model_dump(include=config.model.model_fields_set)
    check_shape(config.train.init, info.model, config.model, config.model.model_fields_set)
    values = {"segments": info.segments, "reset": info.reset, "lr": fine_tuning_lr(config.train, info)}
    train = {key: value for key, value in values.items() if key not in config.train.model_fields_set}
    sections = {"model": Model.model_validate(info.model.model_dump() | set_here), "train": config.train.model_copy(update=train)}
    if not config.tokenizer.model_fields_set:
        sections["tokenizer"] = configuration.Tokenizer(kind="file", file=str(folder / "tokenizer.json"))
    return config.model_copy(update=sections)


def fine_tuning_lr(settings: Train, info: ModelInfo) -> float:
    """The default learning rate: `LR_SHARE` of that of the model, or of ours where it was trained with another optimizer."""
    peak = info.numbers.lr if info.numbers.lr and info.numbers.optimizer == settings.optimizer else settings.lr
    return float(f"{peak * LR_SHARE:.6g}")


def check_shape(name: str, actual: Model, expected: Model, keys: Iterable[str] = SHAPE) -> None:
    """Raises `RequestError` if a model has another shape than expected in one of the settings `keys`."""
    differing = [
        f"model.{key} = {getattr(actual, key)!r}, here {getattr(expected, key)!r}"
        for key in SHAPE
        if key in keys and getattr(actual, key) != getattr(expected, key)
    ]
    if differing:
        raise RequestError(f"train.init: {name} has another shape: {'; '.join(differing)}; leave these settings out to continue it")
