"""Whether a result on the disk was made from the inputs that are asked for; kept beside it in `NAME.inputs.json`."""

import logging
from pathlib import Path
from typing import Any

from packlm.base import files
from packlm.distributed import Ranks

log = logging.getLogger("packlm")


def up_to_date(out: Path, inputs: dict[str, Any], ranks: Ranks) -> bool:
    """All ranks: whether `out` was made from these inputs and is as it was made; says so."""
    noted = _inputs_path(out)
    same = out.is_file() and noted.is_file() and files.read_json(noted) == inputs | {"sha256": files.sha256(out)}
    ranks.barrier()  # all have read before rank 0 writes
    if same:
        log.info("%s: up to date, made from this model with these settings", out)
    return same


def note_inputs(out: Path, inputs: dict[str, Any]) -> None:
    files.write_json(_inputs_path(out), inputs | {"sha256": files.sha256(out)})


def _inputs_path(out: Path) -> Path:
    return out.with_suffix(".inputs.json")
