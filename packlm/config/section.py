"""The base class of all sections of settings, and the types of settings that name files."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """Base class of all sections: immutable, unknown keys are errors, numbers are finite and have bounds.

    The bounds are far beyond what anybody trains; what is outside is a typing error, which would otherwise fail late or never end.
    """

    # Validators are built on first use: worker processes receive validated settings and never need them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)


def refuse_address(value: object) -> object:
    """Refuses an address (`https://...`), which could hold credentials; only `tracking.uri` is one."""
    if isinstance(value, str) and "://" in value:
        raise ValueError("an address (SCHEME://...) is not read here: download it, and give the path of the file or folder")
    return value


Folder = Annotated[Path, BeforeValidator(refuse_address)]
"""A path."""
Location = Annotated[str, BeforeValidator(refuse_address)]
"""A path, or a name with a prefix: `hub:NAME`, `models:/NAME@champion`."""
