"""The commands `export` and `push`: a model folder for other programs, which do not need packlm."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch

from packlm import hub, tracking
from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.interpolation import folder as interpolation_folder
from packlm.model import folder as model_folder
from packlm.model.info import ModelInfo

log = logging.getLogger("packlm")

Target = Literal["transformers", "onnx"]
PRECISIONS = {"transformers": ("full", "bf16"), "onnx": ("full", "int8")}
"""The precisions that a target can have."""


def run(address: str | Path, target: Target, out: Path, precision: str, config: Config) -> None:
    """The command `export`: writes the folder `out`, atomically.

    Raises:
        RequestError: there is no such model, the target does not have the precision, or its packages are not installed.
    """
    work = files.temporary_of(out)
    shutil.rmtree(work, ignore_errors=True)
    with files.naming(work):
        work.mkdir(parents=True)
    info = _write(work, address, target, precision, config)
    files.recover_folder(out)
    files.replace_folder(work, out)
    log.info("%s: %s, for %s", out, info.name, target)


def push(address: str | Path, name: str, private: bool, revision: str | None, precision: str, config: Config) -> str:
    """The command `push`: uploads what `export --to transformers` writes to the repository `name` of the hub; returns its URL.

    Args:
        revision: a branch of the repository, which is created if necessary.

    Raises:
        RequestError: as `run`; or an invalid name, no login, or one without write access.
        PacklmError: the hub does not answer.
    """
    token = hub.login(name, "model")
    with tempfile.TemporaryDirectory(prefix="packlm-") as folder:
        info = _write(Path(folder), address, "transformers", precision, config)
        return hub.upload(Path(folder), name, "model", token, f"{info.name}, weights {info.weights}", private, revision)


def _write(folder: Path, address: str | Path, target: Target, precision: str, config: Config) -> ModelInfo:
    """Writes the files of a target into an empty folder."""
    if precision not in PRECISIONS[target]:
        raise RequestError(f"--precision {precision}: a model for {target} is {' or '.join(PRECISIONS[target])}")
    source = tracking.folder_of(address, config.tracking)
    if interpolation_folder.is_interpolated(source):
        raise RequestError(f"{source}: ensembles, n-grams and caches cannot be exported; give the model folder that it was made from")
    model, info = model_folder.load(source)
    tokenizer = (source / "tokenizer.json").read_text(encoding="utf-8")
    if target == "onnx":
        from . import onnx_folder

        onnx_folder.write(folder, model.float(), info, tokenizer, precision == "int8")
    else:
        from . import transformers_folder

        dtype = torch.bfloat16 if precision == "bf16" else next(model.parameters()).dtype
        transformers_folder.write(folder, model, info, tokenizer, model_folder.read_generation_config(source), dtype)
    return info
