"""The base class of all sections of settings, and the types of settings that name files."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator


class Section(BaseModel):
    """Base class of all sections: immutable, unknown keys are errors, numbers are finite and have bounds.

    The bounds are far beyond what anybody trains; what is outside is a typing error, which would otherwise fail late or never end.
    """

    # Validators are built on first use: worker processes receive validated settings and never need them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any, info: ValidationInfo) -> Any:
        """A boolean in the place of a number or name, or a fraction in that of an integer, as the text that a command line would have: so
        JSON and Python are refused what the command line is, in the same words (pydantic takes True for 1)."""
        if isinstance(value, bool | float):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            is_other = any(kind in (int, float) or get_origin(kind) is Literal for kind in kinds)
            if isinstance(value, bool) and is_other and bool not in kinds:
                return str(value).lower()
            if isinstance(value, float) and int in kinds and float not in kinds:
                return str(value)
        return value


def _kinds(annotation: Any) -> list[Any]:
    """A type, and those that it is made of."""
    return [annotation, *(kind for part in get_args(annotation) for kind in _kinds(part))]


def refuse_address(value: object) -> object:
    """Refuses an address (`https://...`), which could hold credentials; only `tracking.uri` is one."""
    if isinstance(value, str) and "://" in value:
        raise ValueError("an address (SCHEME://...) is not read here: download it, and give the path of the file or folder")
    return value


Folder = Annotated[Path, BeforeValidator(refuse_address)]
"""A path."""
Location = Annotated[str, BeforeValidator(refuse_address)]
"""A path, or a name with a prefix: `hub:NAME`, `models:/NAME@champion`."""
