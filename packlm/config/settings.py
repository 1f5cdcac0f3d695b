"""All settings of all stages, by section. `packlm.config.reading` reads them from files, the environment and the command line."""

from pathlib import Path

from pydantic import Field

from packlm.config.corpus import Corpus
from packlm.config.dataset import Dataset, Tokenizer
from packlm.config.evaluate import Evaluate
from packlm.config.generate import Generate
from packlm.config.model import Model
from packlm.config.scoring import Pairs, Rescore, Score
from packlm.config.section import Section
from packlm.config.train import Train


class Run(Section):
    name: str = Field("quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run; the default of `run.dir`, `dataset.dir` and `tracking.model_name`, and the name of the MLflow run."""
    dir: Path = Path()
    """Output folder of all stages after preprocessing. Default: `runs/NAME`."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of weight initialization, batch order, dropout and sampling."""


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"
    """MLflow tracking URI (store or server); empty: no tracking."""
    experiment: str = "packlm"
    """MLflow experiment of the runs."""
    model_name: str = ""
    """Name of the registered model. Default: the name of the run."""


class Config(Section):
    """All settings of all stages. Created by `resolve` or `load`."""

    run: Run = Field(default_factory=Run)
    corpus: Corpus = Field(default_factory=Corpus)
    tokenizer: Tokenizer = Field(default_factory=Tokenizer)
    dataset: Dataset = Field(default_factory=Dataset)
    model: Model = Field(default_factory=Model)
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    score: Score = Field(default_factory=Score)
    pairs: Pairs = Field(default_factory=Pairs)
    rescore: Rescore = Field(default_factory=Rescore)
    generate: Generate = Field(default_factory=Generate)
    tracking: Tracking = Field(default_factory=Tracking)


PRECISIONS = ("full", "bf16", "int8")
"""Precisions of a loaded model: full, as stored, or quantized by `packlm.model.quantized`. Listed here, without torch, so that a wrong
value is an error before torch is imported."""
