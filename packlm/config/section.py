"""The base class of all sections of settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class of all sections: immutable, unknown keys are errors, numbers are finite."""

    # Validators are built on first use: worker processes receive validated settings and never need them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)
