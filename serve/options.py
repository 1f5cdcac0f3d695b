"""Options that several commands of a trained model have in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from packlm.base.errors import RequestError
from packlm.commands import SettingOption


def setting_options(section: str, *keys: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `--key` as another name of `--section.key`, for each key."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for key in reversed(keys):
            function = click.option(f"--{key.replace('_', '-')}", cls=SettingOption, setting=f"{section}.{key}")(function)
        return function

    return decorate


def several(
    option: str, parameter: str, metavar: str, what: str, help: str, default: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:  # fmt: skip
    """Adds an option that takes one or more values, as `--text A B` or `--text A --text B`, all of them as one parameter.

    Args:
        what: the values, in the plural, for the error about some without the option.
        default: the values that others are added to where the option is left out.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def joined(more: tuple[str, ...], **values: Any) -> None:
            first = values[parameter] or default
            if more and not first:
                raise RequestError(f"{function.__name__}: unexpected argument {more[0]!r}; {what} are given as {option} {metavar}")
            function(**values | {parameter: (*first, *more)})

        with_more = click.argument("more", nargs=-1, metavar="")(joined)
        return click.option(option, parameter, multiple=True, metavar=metavar, help=help)(with_more)

    return decorate


def input_option(content: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds `--input FILE...` as `source`, whose files are looked at before torch is imported."""
    help = f"{content}, from some files or folders; - is standard input.  [default: -]"
    return several("--input", "source", "FILE...", "files", help, default=("-",))
