"""The command `packlm new`: writes a recipe for a folder, and says what was found and what to run next."""

import shlex
from pathlib import Path

from packlm.base import files
from packlm.config import reading

from . import findings as folder_findings
from .recipe import recipe, summary


def run(folder: str, out: Path) -> str:
    """Writes the recipe; returns what was found, and the next command.

    Raises:
        RequestError: there is no such folder; it holds no text.
    """
    found = folder_findings.inspect(folder)
    text = recipe(folder, found)
    files.write_text(out, text)
    reading.load(out)
    lines = [*summary(found), "", f"wrote {out}; the next command:", "", f"    packlm run --config {shlex.quote(str(out))}"]
    return "\n".join(lines)
