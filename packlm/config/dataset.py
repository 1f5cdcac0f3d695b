"""Settings of the sections `tokenizer` and `dataset`: what becomes of the documents."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from packlm.config.section import Section


class Tokenizer(Section):
    kind: Literal["word", "character", "bpe", "file"] = "bpe"
    """word: see `words`. character: Unicode characters. bpe: byte-level byte-pair encoding. All three are trained on the training
    split. file: a ready one, see `file`."""
    vocab_size: int = Field(10_000, ge=1)
    """Most entries the vocabulary may have, special tokens included; a ready tokenizer has the size it has."""
    min_count: int = Field(1, ge=1)
    """word, character: what the training split has less often is unknown."""
    words: Literal["space", "punctuation"] = "space"
    """What counts as a word: what stands between white space; or runs of letters, digits and underscores, and runs of other marks."""
    lowercase: bool = False
    """The tokenizer turns text into lower case, in training and in use."""
    normal_form: Literal["none", "nfc", "nfd", "nfkc", "nfkd"] = "none"
    """The Unicode normal form that the tokenizer turns text into, in training and in use."""
    sample_bytes: int = Field(200_000_000, ge=1)
    """bpe: learns from about so much text, from documents chosen by a hash of their names; from all where there is no more."""
    file: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)] | None = None
    """With `kind = "file"`: a `tokenizer.json`, a SentencePiece `.model`, or `hub:NAME` for a tokenizer on the Hugging Face hub."""
    eos: str = "<eos>"
    """With `kind = "file"`: the special token that ends a sentence there (`<|endoftext|>`, `</s>`); it is called `<eos>` from then on."""

    @model_validator(mode="after")
    def _file(self) -> "Tokenizer":
        if (self.kind == "file") != (self.file is not None):
            raise ValueError('kind = "file" and file = "..." go together')
        return self


class Dataset(Section):
    dir: Path = Path()
    """The dataset's folder; `data/NAME` unless given."""
    rows: Literal["stream", "document"] = "stream"
    """The fixed view cuts all documents laid end to end (stream), or each document by itself (document)."""
    length: int = Field(64, ge=1)
    """Targets in a row of the fixed view."""
    shards: int = Field(8, ge=1)
    """Most shards a split is cut into."""
    executor: Literal["processes", "datatrove", "ray", "slurm"] = "processes"
    """Who runs the tasks: processes of this machine, or an executor of datatrove (local, Ray, Slurm). Changes nothing in the dataset."""
    workers: int | None = Field(None, ge=1)
    """Tasks that run at a time; as many as there are processors unless given. Changes nothing in the dataset."""
    slurm: dict[str, str | int] = Field({})
    """With `executor = "slurm"`: what sbatch is given (`partition`, `time`, `mem_per_cpu_gb`, `qos`, ...)."""
