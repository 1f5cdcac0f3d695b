"""What a program asks of a loaded model: texts, prompts and numbers. Whoever asks (the command line, a file, Python, MLflow), they are
validated here, as settings are and in the same words."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, Strict, ValidationError

from packlm.base.errors import RequestError
from packlm.config.reading import messages
from packlm.config.section import Section


def _several(value: Any) -> Any:
    """A bare string is one text, not a list of letters."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise ValueError("a text or a list of texts is expected")
    return tuple(value)


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"not text: character {error.start + 1} is half of a surrogate pair") from None
    return value


Text = Annotated[str, Strict(), BeforeValidator(_whole_characters)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_several)]


class TextsRequest(Section):
    texts: Texts
    """Texts to measure, or to score as a sentence each."""
    document: bool = False
    """Whether they are consecutive sentences of one document."""


class PromptsRequest(Section):
    prompts: Texts
    """Texts to continue."""


class NextRequest(Section):
    prompt: Text
    """Text before the token."""
    top: int = Field(10, ge=1, le=100_000_000)
    """Number of tokens to list."""


class InterpolateRequest(Section):
    order: int = Field(5, ge=0, le=20)
    """Length of the n-grams; 0: none."""


Request = TypeVar("Request", bound=Section)


def validated(kind: type[Request], **values: Any) -> Request:
    """The values as a request of this kind.

    Raises:
        RequestError: naming every wrong value and what was expected.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise RequestError("; ".join(messages(error))) from None
