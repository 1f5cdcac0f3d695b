"""All settings of all stages, section by section. `packlm.config.reading` reads them from files, environment and command line."""

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
    """Names the run, its folder, its dataset's folder and its record in MLflow."""
    dir: Path = Path()
    """Where everything made after the dataset goes; `runs/NAME` unless given."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of the first weights, the order of the batches, dropout and sampling."""


class Tracking(Section):
    uri: str = "sqlite:///mlflow.db"
    """MLflow's store or server; an empty string records nothing."""
    experiment: str = "packlm"
    """MLflow experiment that the runs belong to."""
    model_name: str = ""
    """Name under which the evaluated model is registered; the run's name unless given."""


class Config(Section):
    """All settings of all stages. Make one with `resolve` or `load`."""

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
"""What a model's weights can be used in: full, as they are stored; the others as in `packlm.model.quantized`. Known without torch, so
that a wrong one is refused before it is imported."""
