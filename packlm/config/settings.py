"""All settings of all stages, by section. `packlm.config.reading` reads them from files, the environment and the command line."""

from pathlib import Path

from pydantic import Field, field_serializer, field_validator

from packlm.base.credentials import is_ambiguous, learn_address, public_address
from packlm.config.corpus import Corpus
from packlm.config.dataset import Dataset, Tokenizer
from packlm.config.evaluate import Evaluate
from packlm.config.generate import Generate
from packlm.config.model import Model
from packlm.config.scoring import Pairs, Rescore, Score
from packlm.config.section import Folder, Section
from packlm.config.train import Train


class Run(Section):
    name: str = Field("quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
    """Name of the run; the default of `run.dir`, `dataset.dir` and `tracking.model_name`, and the name of the MLflow run."""
    dir: Folder = Path()
    """Output folder of all stages after preprocessing. Default: `runs/NAME`."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of weight initialization, batch order, dropout and sampling."""


class Tracking(Section):
    uri: str = Field("sqlite:///mlflow.db", repr=False)
    """MLflow tracking URI (store or server); empty: no tracking. Credentials in it are written to no file: give them in the environment."""
    experiment: str = "packlm"
    """MLflow experiment of the runs."""
    timeout_seconds: float = Field(5.0, gt=0, le=3600)
    """Time that a stage waits in all for a store that does not answer, before the rest is left to `packlm sync`."""
    model_name: str = ""
    """Name of the registered model. Default: the name of the run."""

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        learn_address(uri)
        if is_ambiguous(uri):
            raise ValueError(
                "its user name or password holds characters that are encoded in an address: / as %2F, @ as %40, ? as %3F, # as %23"
            )
        return uri

    @field_serializer("uri")
    def _without_credentials(self, uri: str) -> str:
        return public_address(uri)


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
