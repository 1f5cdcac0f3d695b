"""What `--model` names, looked at without torch: a wrong name is refused before the seconds that importing it takes."""

from pathlib import Path

from packlm.base.errors import RequestError
from packlm.base.regular_files import shown

REGISTRY = "models:/"
"""How an address in a registry begins; only the registry knows whether it is right."""


def check(address: str | Path) -> None:
    """Raises `RequestError` if it is neither a registry address nor a folder with a model's `config.json`."""
    folder = Path(address)
    if str(address).startswith(REGISTRY) or (folder / "config.json").is_file():
        return
    if (folder / "model" / "config.json").is_file():
        problem = f"no model here (no config.json), but in the folder below; give {shown(folder / 'model')}"
    elif folder.is_dir() or not ("://" in str(address) or str(address).startswith("models:")):
        problem = "no model here (no config.json); `packlm train` or `torchrun --nproc-per-node N train` makes one"
    else:
        problem = f"no such folder; an address in a registry is {REGISTRY}NAME@ALIAS or {REGISTRY}NAME/VERSION"
    raise RequestError(f"{shown(folder)}: {problem}")
