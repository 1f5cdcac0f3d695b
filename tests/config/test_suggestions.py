"""A setting that does not exist: the message names the one that was probably meant."""

import pytest

from packlm import config
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.config.suggestions import SYNONYMS


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.leaning_rate", "train.lr"),
        ("train.learning-rate", "train.lr"),
        ("train.batch_size", "train.global_batch_tokens"),
        ("train.n_epochs", "train.epochs"),
        ("model.hidden_size", "model.hidden"),
        ("model.dropouth", "model.dropout_hidden"),
        ("train.num_layers", "model.layers"),
        ("train.lrr", "train.lr"),
        ("train.dropout", "model.dropout"),
        ("generate.sampels", "generate.samples"),
    ],
)
def test_the_setting_that_was_meant_is_named(wrong, meant):
    section, key = wrong.split(".")
    with pytest.raises(RequestError, match=rf"{wrong}: there is no such setting; did you mean {meant}\?"):
        config.resolve({section: {key: 1}})


def test_synonyms_are_of_settings_that_exist_and_are_none_themselves():
    settings = {f"{name}.{key}" for name, field in Config.model_fields.items() for key in field.annotation.model_fields}
    assert set(SYNONYMS.values()) <= settings
    assert not {meant for name, meant in SYNONYMS.items() if f"{meant.split('.')[0]}.{name}" in settings}
