"""The registry of models, through an MLflow client: versions told apart by their weights, and the alias `champion` of the best one."""

from collections.abc import Mapping
from typing import Any

from packlm.tracking import store

CHAMPION = "champion"
"""The alias: `models:/NAME@champion`."""


def version_of(client: Any, name: str, weights: str) -> str | None:
    """The version of a model that has these weights (their digest), the latest if there are several; None where there is none."""
    found = client.search_model_versions(f"name = '{name}' and tag.weights = '{weights}'")
    return max((str(version.version) for version in found), key=int, default=None)


def register(client: Any, name: str, source: Any, run: str, tags: Mapping[str, str]) -> str:
    """Makes a version of what was logged as a model (`source`, MLflow's ModelInfo) by a run; returns its number."""
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version(name, source.model_uri, run, tags=dict(tags), model_id=source.model_id).version)


def champion(client: Any, name: str) -> str:
    """The version that has the alias; empty where none has."""
    try:
        return str(client.get_model_version_by_alias(name, CHAMPION).version)
    except Exception as error:
        if store.is_absent(error):
            return ""
        raise
