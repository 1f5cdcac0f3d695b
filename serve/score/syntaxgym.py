"""Reads test suites of SyntaxGym (Gauthier et al. 2020): sentences cut into regions, whose surprisals are summed.

    {"meta": {"name": ...}, "region_meta": {"1": "Subject", ...}, "items": [{"item_number": 1, "conditions": [
        {"condition_name": "match", "regions": [{"region_number": 1, "content": "The cat"}, ...]}, ...]}, ...], "predictions": [...]}

A sentence is the contents of its regions with spaces between them; regions may be empty. Predictions are not evaluated.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from packlm.base import json_models
from packlm.base.errors import PacklmError, RequestError


class Region(NamedTuple):
    """A region of a sentence."""

    number: int
    name: str
    """From `region_meta`; empty if it has none."""
    content: str
    num_words: int


class SuiteSentence(NamedTuple):
    """One condition of one item."""

    suite: str
    item: int
    condition: str
    text: str
    regions: tuple[Region, ...]


class SuiteRegion(BaseModel):
    model_config = ConfigDict(strict=True)

    region_number: int
    content: str


class SuiteCondition(BaseModel):
    model_config = ConfigDict(strict=True)

    condition_name: str
    regions: list[SuiteRegion] = Field(min_length=1)


class SuiteItem(BaseModel):
    model_config = ConfigDict(strict=True)

    item_number: int
    conditions: list[SuiteCondition]


class SuiteMeta(BaseModel):
    name: str = ""


class Suite(BaseModel):
    model_config = ConfigDict(strict=True)

    meta: SuiteMeta = SuiteMeta()
    region_meta: dict[str, str] = {}
    items: list[SuiteItem]


def is_suite(value: Any) -> bool:
    """Whether the content of a JSON file is a suite."""
    return isinstance(value, dict) and isinstance(value.get("items"), list) and "text" not in value


def sentences(value: Any, name: str) -> Iterator[SuiteSentence]:
    """The sentences of a suite, in order.

    Raises:
        RequestError: it is none; names the file `name` and every key at fault.
    """
    try:
        suite = json_models.parse(value, Suite, name)
    except PacklmError as error:
        raise RequestError(f"{error}; a SyntaxGym suite has `items` with `conditions` with `regions`") from None
    for item in suite.items:
        for condition in item.conditions:
            regions = tuple(
                Region(
                    region.region_number, suite.region_meta.get(str(region.region_number), ""), region.content, len(words(region.content))
                )
                for region in condition.regions
            )
            text = " ".join(region.content.strip() for region in regions if region.num_words)
            yield SuiteSentence(suite.meta.name, item.item_number, condition.condition_name, text, regions)


def words(text: str) -> list[str]:
    """The words of a text, as `packlm.scoring.words` has them."""
    return re.findall(r"\S+", text)
