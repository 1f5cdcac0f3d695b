"""click commands that read a configuration: `--config`, `--section.key value`, their help, and errors in one line.

A stage's `cli.py` declares its verbs:

    @cli.command(sections=("run", "dataset"), example="packlm verb --dataset.dir data/wsj")
    @click.option("--rebuild", is_flag=True, help="Replace an earlier result.")
    def verb(arguments: ConfigArguments, rebuild: bool) -> None:
        config = arguments.load()

A wrong request is refused before torch, pyarrow or mlflow is imported, which takes seconds: a `cli.py` imports them inside its functions.
"""

import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

from packlm import config as configuration
from packlm.base import errors, log
from packlm.base.credentials import REMOVED, SHORTEST, echo, learn_address, was_removed
from packlm.base.errors import RequestError, did_you_mean
from packlm.config import Config, recipes
from packlm.config.section import Section

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120}


@dataclass(frozen=True)
class ConfigArguments:
    """The configuration file and the settings of a command line."""

    file: Path | None = None
    settings: tuple[str, ...] = ()
    """Options and values in turn: `--section.key`, `value`."""

    def load(self, model_only: bool = False) -> Config:
        """The configuration; a `RequestError` also if it is a saved one whose credentials must be given again.

        Args:
            model_only: as in `packlm.config.load`.
        """
        config = configuration.load(self.file, self.settings, model_only=model_only)
        if was_removed(config.tracking.uri):
            raise RequestError(
                f"tracking.uri: the credentials of {config.tracking.uri} are in no file: set MLFLOW_TRACKING_URI to the whole address, or "
                'record nothing with --tracking.uri ""'
            )
        return config


class SettingOption(click.Option):
    """An option that is another name of a setting: `--top-k` for `--generate.top_k`. The configuration checks its value."""

    def __init__(self, *args: Any, setting: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        section, key = setting.split(".")
        self.setting, self.section, self.key = setting, _section(section), key

    def make_metavar(self, ctx: click.Context) -> str:
        return _type_name(self._field.annotation)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        default = self._field.get_default(call_default_factory=True)
        meaning = configuration.explanations(self.section)[self.key]
        shown = f"  [default: {configuration.toml_value(default)}]" if default not in (None, "", ()) else ""
        return self.get_help_spec(ctx), meaning + shown

    @property
    def _field(self) -> FieldInfo:
        return self.section.model_fields[self.key]


class Command(click.Command):
    """A command whose callback gets `arguments`, a `ConfigArguments`, beside the values of its options.

    Args:
        sections: of the configuration that it reads, for its help; a command without any takes no settings, and gets no `arguments`.
        example: a command line to copy.
        less_memory: the remedy that is named when memory runs out.
    """

    def __init__(self, *args: Any, sections: tuple[str, ...] = (), example: str = "", less_memory: str = "", **kwargs: Any):
        super().__init__(*args, **{"context_settings": CONTEXT, **kwargs})
        self.sections, self.example, self.less_memory = sections, example, less_memory
        if sections:
            self.params.append(_config_option())
            self.options_metavar = "[OPTIONS] [--SECTION.KEY VALUE]..."

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # shell completion: the command line is not complete
            return super().parse_args(ctx, args)
        file, settings, others = configuration.split_arguments(args)
        if (file or settings) and not self.sections:
            raise RequestError(f"{ctx.info_name} reads no configuration: remove {settings[0] if settings else '--config'}")
        rest = super().parse_args(ctx, others)
        for option in self.params:
            if isinstance(option, SettingOption) and (value := ctx.params.pop(str(option.name))) is not None:
                settings += [f"--{option.setting}", value]
        if self.sections:
            ctx.params["arguments"] = ConfigArguments(file, tuple(settings))
        return rest

    def invoke(self, ctx: click.Context) -> None:
        """Runs the callback; an error becomes one line on standard error, and the exit status."""
        errors.run(partial(super().invoke, ctx), self.less_memory)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.sections:
            with formatter.section("Settings, as --SECTION.KEY VALUE; `packlm config --explain` says what they mean"):
                formatter.write_dl([(name, ", ".join(_section(name).model_fields)) for name in self.sections])
        if self.example:
            with formatter.section("Example"):
                formatter.write("".join(f"  {line}\n" for line in self.example.splitlines()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        settings = [f"--{name}.{key}" for name in self.sections for key in _section(name).model_fields]
        matching = [CompletionItem(setting) for setting in settings if incomplete.startswith("--") and setting.startswith(incomplete)]
        return super().shell_complete(ctx, incomplete) + matching


class Group(click.Group):
    """Verbs. A command line without a verb means `default`, or asks for help where there is none."""

    command_class = Command

    def __init__(self, *args: Any, default: str = "", **kwargs: Any):
        super().__init__(*args, **{"context_settings": CONTEXT, **kwargs})
        self.default = default

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands]  # in the order of their declaration

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._verb_first(ctx, args))

    def _verb_first(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Moves settings behind the verb, and adds the default verb; `help VERB` becomes `VERB --help`."""
        if args[:1] == ["help"]:
            return [*args[1:], "--help"]
        if args and not args[0].startswith("-"):
            return args
        if not args and not self.default:
            return ["--help"]
        own_options = [name for option in self.get_params(ctx) for name in option.opts]
        file, settings, others = configuration.split_arguments(args)
        if others and others[0] in own_options:
            return others
        if self.default and (not others or others[0].startswith("-")):
            others.insert(0, self.default)
        if not others:
            raise RequestError(f"a command is missing; there are {', '.join(self.list_commands(ctx))}")
        return [*others, *(["--config", str(file)] if file else []), *settings]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        verbs = self.list_commands(ctx)
        if args[0] not in verbs:
            hint = did_you_mean(args[0], verbs)
            raise RequestError(f"unknown command {repr(args[0]) if hint else echo(args[0])}; {hint or 'there are ' + ', '.join(verbs)}")
        return super().resolve_command(ctx, args)


def run(cli: click.Command, program: str) -> None:
    """Runs the command line of this process, and exits with its status; `program` is how help and messages call it."""
    log.setup()
    for word in sys.argv[1:]:
        learn_address(word)  # whichever option or argument it is
    errors.run(partial(_invoke, cli, program))


def _invoke(cli: click.Command, program: str) -> None:
    try:
        with cli.make_context(program, sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit:  # --help and --version have printed what they are for
        pass
    except click.UsageError as error:
        raise RequestError(_usage_message(error)) from None


def _usage_message(error: click.UsageError) -> str:
    """What is wrong with an option or argument, in one line, with the option that was meant."""
    context, message = error.ctx, error.format_message().rstrip(".")
    if isinstance(error, click.MissingParameter):
        message = " ".join(message.split())  # click lists choices line by line
    if isinstance(error, click.NoSuchOption) and context:
        name = re.sub(r"[^\w.-].*", "", error.option_name, flags=re.DOTALL)[:100]  # what follows may be a value
        message = f"unknown option {name!r}; {_option_hint(name, context)}"
    else:
        message = _without_values(message, error)
    return f"{message[0].lower()}{message[1:]}" + (f"; see `{context.command_path} --help`" if context else "")


def _without_values(message: str, error: click.UsageError) -> str:
    """The message without the words of the command line that may be credentials in the wrong place: long ones, unlike any choice."""
    kind = error.param.type if isinstance(error, click.BadParameter) and error.param else None
    choices = [str(choice) for choice in kind.choices] if isinstance(kind, click.Choice) else []
    values = [word.partition("=")[2] if word.startswith("-") else word for word in sys.argv[1:]]
    for value in values:
        if len(value) >= SHORTEST and not did_you_mean(value, choices):
            message = message.replace(value, REMOVED)
    return message


def _option_hint(name: str, context: click.Context) -> str:
    siblings = context.parent.command.commands.values() if context.parent and isinstance(context.parent.command, click.Group) else ()
    for sibling in siblings:
        if any(name in option.opts for option in sibling.params):
            return f"it belongs to {sibling.name}"
    known = [option for parameter in context.command.get_params(context) for option in parameter.opts if option.startswith("-")]
    takes_settings = isinstance(context.command, Command) and context.command.sections
    return did_you_mean(name, known, "settings are given as --section.key value" if takes_settings else "known: " + ", ".join(known))


def _config_option() -> click.Option:
    return click.Option(
        ["--config"], metavar="FILE|RECIPE", expose_value=False, shell_complete=_complete_config,
        help="Configuration: a TOML file, or a recipe that `packlm recipes` lists.  [default: quickstart, where neither run.name nor "
        "corpus.train is set]",
    )  # fmt: skip


def _complete_config(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[CompletionItem]:
    matching = [CompletionItem(name) for name in recipes.names() if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="file")]


def _section(name: str) -> type[Section]:
    section: Any = Config.model_fields[name].annotation
    assert issubclass(section, Section)
    return section


def _type_name(annotation: Any) -> str:
    """A type as help shows it: `greedy|sample|beam`, `FLOAT|tune`."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if annotation in (bool, int, float):
        return {bool: "true|false", int: "INTEGER", float: "FLOAT"}[annotation]
    if get_origin(annotation) is tuple:
        return "LIST"
    alternatives = [argument for argument in get_args(annotation) if isinstance(argument, type) or get_origin(argument)]
    return "|".join(_type_name(argument) for argument in alternatives if argument is not NoneType) or "TEXT"
