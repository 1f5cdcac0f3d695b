"""Sections `tokenizer` and `dataset`: how documents become tokens and shards."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from packlm.base.credentials import is_secret_name
from packlm.config.section import Folder, Location, Section


class Tokenizer(Section):
    kind: Literal["word", "character", "bpe", "file"] = "bpe"
    """word: see `words`. character: Unicode characters. bpe: byte-level byte-pair encoding. All three are trained on the training
    split. file: a pretrained tokenizer, see `file`."""
    vocab_size: int | None = Field(None, ge=1, le=100_000_000)
    """Maximum size of the vocabulary, special tokens included; ignored for a pretrained tokenizer. Default: word: 50,000; character:
    unlimited; bpe: by the size of the training split, 1,000 for 100 kB of text, 3,200 for 1 MB, 10,000 for 10 MB, at most 16,000."""
    min_count: int | None = Field(None, ge=1, le=10**12)
    """word, character: minimum number of occurrences in the training split; rarer ones become `<unk>`. Default: word: 2; character: 1."""
    words: Literal["space", "punctuation"] = "space"
    """word: split at whitespace; or at whitespace and punctuation, into runs of letters, digits and underscores and runs of other
    characters."""
    lowercase: bool = False
    """The tokenizer lowercases its input, in training and in use."""
    normal_form: Literal["none", "nfc", "nfd", "nfkc", "nfkd"] = "none"
    """Unicode normalization applied by the tokenizer, in training and in use."""
    sample_bytes: int = Field(200_000_000, ge=1, le=1 << 40)
    """bpe: size of the text sample that merges are learned from, in bytes; documents are selected by a hash of their names, and of their
    words those that fit in memory by a hash of the words, weighted by frequency."""
    file: Annotated[Location, BeforeValidator(lambda value: str(value) if isinstance(value, Path) else value)] | None = None
    """With `kind = "file"`: a `tokenizer.json`, a SentencePiece `.model`, or `hub:NAME` for a tokenizer on the Hugging Face Hub."""
    eos: str = "<eos>"
    """With `kind = "file"`: the pretrained tokenizer's end-of-sequence token (`<|endoftext|>`, `</s>`), which is used as `<eos>`."""

    @model_validator(mode="after")
    def _check_file(self) -> "Tokenizer":
        if (self.kind == "file") != (self.file is not None):
            raise ValueError('kind = "file" and file = "..." go together')
        return self


class Dataset(Section):
    dir: Folder = Path()
    """Dataset folder. Default: `data/NAME`."""
    rows: Literal["stream", "document"] = "stream"
    """Rows of the fixed view: cut from the concatenated documents (stream), or from each document separately (document)."""
    length: int = Field(64, ge=1, le=10**7)
    """Targets per row of the fixed view."""
    shards: int = Field(8, ge=1, le=100_000)
    """Maximum number of shards per split."""
    executor: Literal["processes", "datatrove", "ray", "slurm"] = "processes"
    """Where tasks run: local processes, or an executor of datatrove (local, Ray, Slurm). Does not affect the dataset."""
    workers: int | None = Field(None, ge=1, le=10_000)
    """Number of tasks that run in parallel. Default: the number of processors. Does not affect the dataset."""
    slurm: dict[str, str | Annotated[int, Field(ge=0, le=10**9)]] = Field({})
    """With `executor = "slurm"`: options of sbatch (`partition`, `time`, `mem_per_cpu_gb`, `qos`, ...)."""

    @field_validator("slurm")
    @classmethod
    def _check_credentials(cls, options: dict[str, str | int]) -> dict[str, str | int]:
        names = [*options, *(name for value in options.values() for name in re.findall(r"([\w-]+)=", str(value)))]
        if secret := next((name for name in names if is_secret_name(name)), None):
            raise ValueError(f"{secret}: credentials are not given here, as settings are written to files; set them in the environment")
        return options
