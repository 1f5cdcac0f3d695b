"""Configuration: typed settings, one class per section, and how their values are read."""

from packlm.config.corpus import Corpus
from packlm.config.dataset import Dataset, Tokenizer
from packlm.config.evaluate import Evaluate
from packlm.config.generate import Generate
from packlm.config.model import Model
from packlm.config.reading import DEFAULT_CONFIG, explanations, load, resolve, split_arguments, to_toml, toml_value
from packlm.config.scoring import Pairs, Rescore, Score
from packlm.config.section import Section
from packlm.config.settings import Config, Run, Tracking
from packlm.config.train import Train

__all__ = [
    "DEFAULT_CONFIG", "Config", "Corpus", "Dataset", "Evaluate", "Generate", "Model", "Pairs", "Rescore", "Run", "Score", "Section",
    "Tokenizer", "Tracking", "Train", "explanations", "load", "resolve", "split_arguments", "to_toml", "toml_value",
]  # fmt: skip
