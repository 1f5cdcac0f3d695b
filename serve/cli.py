"""Uses a trained model.

    python -m serve evaluate [--model M] [--data DIR | --text FILE ...] [--split S|all] [--out F.json|F.md]    perplexity
                             [--context sentences|documents|streams] [--streams N] [--cache N | --dynamic-lr X]
    python -m serve score    [--model M] [--input F|-] [--out F|-] [--html F.html]           surprisal of each word, as TSV or JSONL
                             [--context sentence|document] [--rows word|token|sentence] [--format text|tsv|jsonl] [--text-field NAME]
    python -m serve pairs    [--model M] [--input F|-] [--out F|-] [--summary F.json]        minimal pairs: accuracy, differences
                             [--good NAME] [--bad NAME] [--group NAME] [--format tsv|jsonl]
    python -m serve rescore  [--model M] --nbest F.jsonl|DIR|WORDS [--ac-cost F [--lm-cost F]] [--references F] [--tune-on F]
                             [--lm-weight X|tune] [--word-bonus X|tune] [--old-lm-weight X|tune] [--out F|DIR] [--summary F.json]
                             [--context N [--segments F] [--context-from best|reference]] [--sign log-prob|cost] [--log-base B]
    python -m serve next     [--model M] --prompt TEXT [--top 10]                             the likeliest next tokens
    python -m serve generate [--model M] [--prompts F|- | --prompt TEXT] [--out F|-]          continuations, as JSONL or Parquet
                             [--strategy greedy|sample|beam] [--samples N] [--min-tokens N] [--max-tokens N] [--seed N]
                             [--temperature X] [--top-k N] [--top-p X] [--min-p X] [--typical-p X] [--replacement true|false]
                             [--beams N] [--length-penalty X] [--no-repeat-ngram N] [--banned '["W", ...]'] [--stop '["S", ...]']
                             [--stop-at-eos true|false]
    torchrun --nproc-per-node 4 serve generate --model M --prompts F --out F                 also evaluate, score, pairs

M is a model folder or a registry address (models:/NAME@champion); without it, the configuration's `run.dir/model`. --precision bf16 or
int8 (any command, CPUs) takes less memory and is faster in wide models, at the cost of a little perplexity. `evaluate` and
`generate` without any of these options are stages of the pipeline: they measure the configured dataset, continue the configured
prompts, and keep a record in MLflow. Every command takes --config FILE and --section.key value; generate --model M draws
as M's generation_config.json says unless told otherwise.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import IO, NoReturn

from packlm import config as configuration
from packlm.base import errors
from packlm.base import log as logs
from packlm.base.errors import RequestError, did_you_mean
from packlm.config import Config
from packlm.config.generate import DRAWING
from packlm.config.settings import PRECISIONS

SETTINGS: dict[str, dict[str, str]] = {
    "evaluate": {name: f"evaluate.{name}" for name in ("split", "context", "streams", "cache", "dynamic_lr")},
    "score": {name: f"score.{name}" for name in ("context", "rows", "format", "text_field")},
    "pairs": {name: f"pairs.{name}" for name in ("format", "good", "bad", "group")},
    "rescore": {
        name: f"rescore.{name}" for name in ("lm_weight", "word_bonus", "old_lm_weight", "context", "context_from", "sign", "log_base")
    },
    "next": {},
    "generate": {name: f"generate.{name}" for name in DRAWING} | {"seed": "run.seed"},
}
"""Options of each command that are other names of settings; the configuration checks their values."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}; see `python -m serve --help`")


def main() -> None:
    """Reads the command line and does what it asks."""
    logs.setup()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a command as Ctrl-C does: what a batch job has made by then is kept
    words = sys.argv[1:]
    if not words or "-h" in words or "--help" in words:
        print(__doc__, end="")
        return
    file, settings, others = configuration.split_arguments(words)
    asked = parse(others)
    for name, key in SETTINGS[asked.command].items():
        if (value := getattr(asked, name)) is not None:
            settings += [f"--{key}", value]
    config = configuration.load(file, settings)
    if asked.command == "generate":
        generate(asked, config, settings if asked.model and not file else None)
    else:
        {"evaluate": evaluate, "score": score, "pairs": pairs, "rescore": rescore, "next": next_tokens}[asked.command](asked, config)


def parse(words: list[str]) -> argparse.Namespace:
    """Reads a command line without its settings; `RequestError` naming what is wrong, and what was perhaps meant."""
    options: dict[str, list[str]] = {}
    parser = _Parser(prog="serve", add_help=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, aliases in SETTINGS.items():
        command = commands.add_parser(name, add_help=False, allow_abbrev=False)
        command.add_argument("--model")
        command.add_argument("--precision", choices=PRECISIONS, default="full")
        for alias in aliases:
            command.add_argument(f"--{alias.replace('_', '-')}", dest=alias)
        if name == "evaluate":
            source = command.add_mutually_exclusive_group()
            source.add_argument("--data", type=Path)
            source.add_argument("--text", nargs="+")
        elif name == "score":
            command.add_argument("--input", default="-")
            command.add_argument("--html", type=Path)
        elif name == "pairs":
            command.add_argument("--input", default="-")
            command.add_argument("--summary", type=Path)
        elif name == "rescore":
            command.add_argument("--nbest", required=True)
            for option in ("--ac-cost", "--lm-cost", "--references", "--tune-on", "--segments", "--summary"):
                command.add_argument(option, type=Path)
        elif name == "next":
            command.add_argument("--prompt", required=True)
            command.add_argument("--top", type=_positive, default=10)
        else:
            prompts = command.add_mutually_exclusive_group()
            prompts.add_argument("--prompts")
            prompts.add_argument("--prompt")
        if name != "next":
            command.add_argument("--out")
        options[name] = [option for action in command._actions for option in action.option_strings]
    if words and words[0] not in options:
        raise RequestError(f"unknown command {words[0]!r}; {did_you_mean(words[0], options, 'there are ' + ', '.join(options))}")
    asked, unknown = parser.parse_known_args(words)
    if unknown:
        taken = options[asked.command]
        hint = did_you_mean(unknown[0].partition("=")[0], taken, f"{asked.command} takes {' '.join(taken)}")
        raise RequestError(f"unknown argument {unknown[0]!r}; {hint}")
    return asked


def evaluate(asked: argparse.Namespace, config: Config) -> None:
    """The command `evaluate`, or the stage where none of its own options is given."""
    if asked.model and not (asked.data or asked.text):
        raise RequestError("evaluate --model M needs text to measure: give --data DIR (a dataset) or --text FILE ...")

    from packlm import distributed  # torch takes seconds to import, and a wrong request should not wait for it

    from .evaluate import command, stage

    with distributed.start(config.train.device) as ranks:
        if asked.model or asked.data or asked.text or asked.out or asked.precision != "full":
            command.run(_model(asked, config), asked, config, ranks)
            return
        table = stage.evaluate(config, ranks)
        if ranks.first:
            print(table)


def score(asked: argparse.Namespace, config: Config) -> None:
    """The command `score`."""
    source = _opened(asked.input)

    from packlm import distributed

    from .score import command as score_command

    with source, distributed.start(config.train.device) as ranks:
        out = asked.out or "-"
        score_command.run(_model(asked, config), source, asked.input, out, asked.html, config, ranks, asked.precision)


def pairs(asked: argparse.Namespace, config: Config) -> None:
    """The command `pairs`."""
    source = _opened(asked.input)

    from packlm import distributed

    from .pairs import command as pairs_command

    with source, distributed.start(config.train.device) as ranks:
        pairs_command.run(_model(asked, config), source, asked.input, asked.out, asked.summary, config, ranks, asked.precision)


def rescore(asked: argparse.Namespace, config: Config) -> None:
    """The command `rescore`."""
    from packlm import distributed

    from .rescore import command as rescore_command

    with distributed.start(config.train.device) as ranks:
        rescore_command.run(_model(asked, config), asked, config, ranks)


def next_tokens(asked: argparse.Namespace, config: Config) -> None:
    """The command `next`."""
    from packlm.engine import Engine

    from .score.files import escape

    engine = Engine.load(_model(asked, config), store=config.tracking, precision=asked.precision)
    print("token\tprobability")
    for token, probability in engine.next(asked.prompt, asked.top):
        print(f"{escape(token)}\t{probability:.6f}")


def generate(asked: argparse.Namespace, config: Config, given: list[str] | None) -> None:
    """The command `generate`, or the stage where none of its own options is given; `given`: as of `generate_command.run`."""
    from packlm import distributed

    from .generate import command as generate_command
    from .generate import stage

    with distributed.start(config.train.device) as ranks:
        if asked.model or asked.prompts or asked.prompt is not None or asked.out or asked.precision != "full":
            generate_command.run(_model(asked, config), asked, config, given, ranks)
        else:
            stage.generate(config, ranks)


def _model(asked: argparse.Namespace, config: Config) -> str | Path:
    return asked.model or config.run.dir / "model"


def _opened(name: str) -> IO[bytes]:
    """A file, or standard input (`-`); opened before torch is imported, so that a wrong name is known at once."""
    try:
        return sys.stdin.buffer if name == "-" else open(name, "rb")
    except OSError as error:
        raise RequestError(f"{name}: cannot be read: {error.strerror}") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def run() -> None:
    """Runs `main`; what goes wrong becomes a line on standard error and the exit status."""
    errors.run(main, less_memory="lower evaluate.batch_tokens or generate.batch_tokens, which change nothing else")
