"""The base class of all sections of settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """What all sections share: unknown keys are refused, numbers are finite, values never change."""

    # Built when first needed: the processes that others start get their settings ready made.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), defer_build=True)
