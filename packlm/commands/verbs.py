"""The `packlm` command: every verb of every stage, each stage imported when one of its verbs is run.

The library imports no stage; it knows their names, and what each must have: a module `cli` with a click command called `cli`.
"""

import os
from functools import partial
from importlib import import_module, metadata

import click
from click.shell_completion import get_completion_class, shell_complete

from packlm.base import errors, log
from packlm.base.errors import RequestError
from packlm.commands.command import Group, run
from packlm.config import recipes

VERBS = {
    "All stages": {"new": "pipeline", "run": "pipeline", "config": "pipeline", "compare": "pipeline", "sweep": "pipeline",
        "sync": "pipeline", "fetch": "pipeline",
    },
    "One stage": {"preprocess": "preprocess", "train": "train"},
    "A trained model": {
        "evaluate": "serve", "score": "serve", "pairs": "serve", "rescore": "serve", "states": "serve", "next": "serve",
        "generate": "serve", "interpolate": "serve", "average": "train", "server": "serve",
        "export": "serve", "push": "serve",
    },
}  # fmt: skip
"""Verbs and their stages, as the help groups them."""
STAGES = {verb: stage for verbs in VERBS.values() for verb, stage in verbs.items()}
COMPLETION_VARIABLE = "_PACKLM_COMPLETE"


class Packlm(Group):
    """The verbs of all stages, beside the commands that are declared here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*STAGES, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        stage = STAGES.get(cmd_name)
        if stage is None:
            return self.commands.get(cmd_name)
        module = import_module(f"packlm.stages.{stage}.cli")
        cli: click.Command = module.cli
        if cmd_name == stage:
            return cli
        return cli.commands[cmd_name] if isinstance(cli, click.Group) else getattr(module, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {title: [*verbs] for title, verbs in VERBS.items()} | {"The command itself": [*self.commands]}
        for title, verbs in groups.items():
            commands = [(verb, self.get_command(ctx, verb)) for verb in verbs]
            with formatter.section(title):
                formatter.write_dl([(verb, command.get_short_help_str(200)) for verb, command in commands if command])


def _version() -> str:
    try:
        return metadata.version("packlm")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"


@click.group(cls=Packlm)
@click.version_option(_version(), prog_name="packlm")
def cli() -> None:
    """Train, measure and sample recurrent language models on your own text.

    `packlm run` goes through all stages with the built-in corpus; `packlm VERB --help` describes one verb. Any setting can be
    given as `--section.key value`, and `packlm config --explain` lists all of them.
    """


@cli.command("recipes", example="packlm run --config wsj-articles --corpus.train FOLDER")
def list_recipes() -> None:
    """List the recipes: configurations that `--config` knows by name."""
    for name in recipes.names():
        print(f"{name:<20}{recipes.title(name)}")


@cli.command(
    example='eval "$(packlm completion bash)"          # in ~/.bashrc\npacklm completion fish > ~/.config/fish/completions/packlm.fish'
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that makes a shell complete verbs, options, settings and recipes."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    print(completion_class(cli, {}, "packlm", COMPLETION_VARIABLE).source())


def _complete(instruction: str) -> None:
    log.setup()
    try:
        status = shell_complete(cli, {}, "packlm", COMPLETION_VARIABLE, instruction)
    except (KeyError, ValueError):
        raise RequestError("COMP_WORDS and COMP_CWORD: set by a shell; the script of `packlm completion SHELL` makes it do so") from None
    raise SystemExit(status)


def main() -> None:
    """The entry point `packlm`."""
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        errors.run(partial(_complete, instruction))
        return
    run(cli, "packlm")
