"""The commands of a trained model: `python -m serve evaluate|score|pairs|...`, most of them also under torchrun."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from packlm.base import output_paths
from packlm.base.errors import RequestError
from packlm.commands import Command, ConfigArguments, Group, run
from packlm.config import Config
from packlm.config.generate import DECODING_SETTINGS
from packlm.config.requests import InterpolateRequest, NextRequest, validated
from packlm.config.settings import PRECISIONS
from packlm.model import address as model_address

from . import inputs
from .options import input_option, setting_options, several

FILE = click.Path(path_type=Path)


class ModelCommand(Command):
    """A command that uses a model: `--model` and `--precision`."""

    def __init__(self, *args: Any, **kwargs: Any):
        less_memory = "lower evaluate.batch_tokens or generate.batch_tokens, which change nothing else"
        super().__init__(*args, less_memory=less_memory, **kwargs)
        self.params[:0] = [
            click.Option(
                ["--model"],
                help="Model folder, or registry address such as models:/NAME@champion.  [default: `run.dir`/model]",
            ),
            click.Option(
                ["--precision"],
                type=click.Choice(PRECISIONS),
                default="full",
                help="Precision of the weights; on CPUs, bf16 and int8 take less memory and are faster in wide models, at the cost of a "
                "little perplexity.",
            ),
        ]


class ModelGroup(Group):
    command_class = ModelCommand


@click.group(cls=ModelGroup)
def cli() -> None:
    """Evaluate a trained model, score sentences with it, generate text from it."""


@cli.command(
    sections=("run", "dataset", "evaluate", "tracking"),
    example="packlm evaluate --model runs/quickstart/model --data data/quickstart --split test --out report.md\n"
    "packlm evaluate --model runs/quickstart/model --text notes.txt letters.txt",
)
@click.option("--data", type=FILE, metavar="DIR", help="Dataset to measure.  [default: `dataset.dir`]")
@several("--text", "text", "FILE...", "text files", "Text files to measure, by the model's own text rules.")
@click.option("--out", metavar="FILE", help="Report to write: .json, .md (a page with a figure), or - for JSON on standard output.")
@setting_options("evaluate", "split", "context", "streams", "cache", "dynamic_lr")
def evaluate(
    arguments: ConfigArguments, model: str | None, precision: str, data: Path | None, text: tuple[str, ...], out: str | None
) -> None:  # fmt: skip
    """Measure perplexity, per token and per word, and bits per byte.

    Without --model, --data, --text, --out and --precision it is a stage: it measures the configured dataset with the model in `run.dir`,
    records the result in MLflow and registers the model, unless that is done already.
    """
    config = arguments.load(model_only=model is not None)
    _refuse_both("--data", data, "--text", text)
    if model and not (data or text):
        raise RequestError("evaluate --model M needs text to measure: give --data DIR (a dataset) or --text FILE...")
    figure = Path(out).with_suffix(".svg") if out and out.endswith(".md") else None
    output_paths.check({"--out": out, "--out (its figure)": figure}, text)
    address = _model(model, config)

    from packlm import distributed

    from .evaluate import command, stage

    with distributed.start(config.train.device) as ranks:
        if model or data or text or out or precision != "full":
            command.run(address, command.EvaluateOptions(list(text), data, out, precision), config, ranks)
            return
        table = stage.evaluate(config, ranks)
        if ranks.first:
            print(table)


@cli.command(
    sections=("run", "score", "evaluate", "tracking"),
    example="packlm score --model runs/quickstart/model --input items.tsv --out words.tsv --html map.html",
)
@input_option("Sentences")
@click.option("--out", default="-", metavar="FILE", help="Scores: JSONL if the name ends in .jsonl, else TSV; - is standard output.")
@click.option("--html", type=FILE, metavar="FILE", help="Heat map of the first sentences.")
@setting_options("score", "context", "rows", "format", "text_field")
def score(
    arguments: ConfigArguments, model: str | None, precision: str, source: tuple[str, ...], out: str,
    html: Path | None,
) -> None:  # fmt: skip
    """Write the surprisal and entropy of each word or token, or the log-probability of each sentence.

    Tables are read by `corpus.delimiter` and `corpus.quoting`, as corpora are.
    """
    config, names, address = _checked(arguments, model, source, {"--out": out, "--html": html})

    from packlm import distributed

    from .score import command

    with distributed.start(config.train.device) as ranks:
        command.run(address, names, out, html, config, ranks, precision)


@cli.command(
    sections=("run", "pairs", "evaluate", "tracking"),
    example="packlm pairs --model runs/quickstart/model --input pairs.tsv --group kind --summary accuracy.json",
)
@input_option("Pairs as TSV, CSV or JSONL")
@click.option(
    "--out", metavar="FILE", help="The pairs with their scores: JSONL if the name ends in .jsonl, else TSV; - is standard output."
)
@click.option("--summary", type=FILE, metavar="FILE", help="The accuracies, as JSON.")
@setting_options("pairs", "good", "bad", "group", "format")
def pairs(
    arguments: ConfigArguments, model: str | None, precision: str, source: tuple[str, ...], out: str | None,
    summary: Path | None,
) -> None:  # fmt: skip
    """Compare minimal pairs: how often the acceptable sentence is the more probable one.

    Tables are read by `corpus.delimiter` and `corpus.quoting`, as corpora are.
    """
    config, names, address = _checked(arguments, model, source, {"--out": out, "--summary": summary})

    from packlm import distributed

    from .pairs import command

    with distributed.start(config.train.device) as ranks:
        command.run(address, names, out, summary, config, ranks, precision)


@cli.command(
    sections=("run", "rescore", "evaluate", "tracking"),
    example="packlm rescore --model runs/quickstart/model --nbest lists.jsonl --references text --out rescored.jsonl\n"
    "packlm rescore --model runs/quickstart/model --nbest words.txt --ac-cost ac.txt --lm-cost lm.txt --lm-weight 0.7",
)
@click.option("--nbest", required=True, metavar="FILE|DIR", help="n-best lists: a .jsonl file, an ESPnet folder, or Kaldi words.")
@click.option("--ac-cost", type=FILE, metavar="FILE", help="Kaldi: acoustic costs.")
@click.option("--lm-cost", type=FILE, metavar="FILE", help="Kaldi: costs of the recognizer's own language model.")
@click.option("--references", type=FILE, metavar="FILE", help="Reference transcripts; weights are tuned on them.")
@click.option("--tune-on", type=FILE, metavar="FILE", help="Utterance ids that weights are tuned on.  [default: all]")
@click.option("--segments", type=FILE, metavar="FILE", help="Kaldi segments: the recordings of the utterances, for --context.")
@click.option("--out", metavar="FILE|DIR", help="The lists, re-ranked, in the format of the input.  [default: standard output]")
@click.option("--summary", type=FILE, metavar="FILE", help="Weights and word error rates, as JSON.")
@setting_options("rescore", "lm_weight", "word_bonus", "old_lm_weight", "context", "context_from", "sign", "log_base")
def rescore(arguments: ConfigArguments, model: str | None, **options: Any) -> None:
    """Re-rank n-best lists of a speech recognizer, with weights that are given or tuned for the fewest word errors."""
    config = arguments.load(model_only=model is not None)
    address = _model(model, config)

    from packlm import distributed

    from .rescore import command

    with distributed.start(config.train.device) as ranks:
        command.run(address, command.RescoreOptions(**options), config, ranks)


@cli.command(
    sections=("run", "score", "evaluate", "tracking"),
    example="packlm states --model runs/quickstart/model --input items.tsv --layers 1,2 --out states.parquet",
)
@input_option("Sentences")
@click.option("--out", required=True, type=FILE, metavar="FILE", help="The states: .parquet, or .npz for NumPy.")
@click.option("--layers", default="all", metavar="all|0,1,...", help="0 is the embedding, 1 the first recurrent layer.  [default: all]")
@click.option("--unit", type=click.Choice(["word", "token"]), default="word", help="What has a vector; a word that after its last token.")
@setting_options("score", "context", "format", "text_field")
def states(
    arguments: ConfigArguments, model: str | None, precision: str, source: tuple[str, ...], out: Path, layers: str,
    unit: Literal["word", "token"],
) -> None:  # fmt: skip
    """Write the hidden states of every layer after each word or token, for probing."""
    config, names, address = _checked(arguments, model, source, {"--out": out})
    if out.suffix not in (".parquet", ".npz"):
        raise RequestError(f"--out {out}: its name ends in .parquet or .npz")
    numbers = None if layers == "all" else [int(word) for word in layers.split(",") if word.isdecimal()]
    if numbers is not None and (not numbers or len(numbers) < len(layers.split(",")) or len(set(numbers)) < len(numbers)):
        raise RequestError(f"--layers {layers}: expected all, or different numbers such as 0,2")

    from .states import command

    command.run(address, names, out, numbers, unit, config, precision)


@cli.command(
    sections=("run", "dataset", "evaluate", "tracking"),
    example="packlm interpolate --model runs/quickstart/model --data data/quickstart --out mixed\n"
    "packlm interpolate --model runs/ptb-5min/model --data data/ptb --ngrams kn5.arpa --cache 500 --out mixed\n"
    "packlm interpolate --model runs/seed1/model --network runs/seed2/model runs/seed3/model --data data/ptb --order 0 --out ensemble",
)
@click.option("--data", type=FILE, metavar="DIR", help="Dataset to count n-grams and tune weights in.  [default: `dataset.dir`]")
@several("--network", "networks", "MODEL...", "further networks", "Further networks, as other seeds of a training (an ensemble).")
@click.option("--ngrams", type=FILE, metavar="FILE", help="N-grams as an ARPA file.  [default: counted in the training split]")
@click.option("--order", metavar="INTEGER", default="5", help="Length of the n-grams that are counted; 0: no n-grams.")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="The new model folder.")
@setting_options("evaluate", "split", "context", "cache")
def interpolate(
    arguments: ConfigArguments, model: str | None, precision: str, data: Path | None, networks: tuple[str, ...],
    ngrams: Path | None, order: str, out: Path,
) -> None:  # fmt: skip
    """Mix a model with further networks, n-grams and a cache, with weights tuned on held-out text, as a new model folder.

    Every command that takes --model takes the new folder.
    """
    config = arguments.load(model_only=model is not None)
    if precision != "full":
        raise RequestError("--precision: the folder keeps full weights; give --precision to the command that uses it")
    if config.evaluate.split == "all":
        raise RequestError("--split all: weights are tuned on one split")
    request = validated(InterpolateRequest, order=order)
    if not (networks or ngrams or request.order or config.evaluate.cache):
        raise RequestError("--order 0: there is nothing to mix with; give --network, --cache or --ngrams")
    address = _model(model, config)
    for each in (address, *networks):
        output_paths.check_model_folder("--out", out, each)

    from .interpolate import command

    command.run(address, command.InterpolateOptions(data, out, networks, ngrams, request.order), config)


@cli.command(
    sections=("run", "tracking"),
    example="packlm server --model runs/quickstart/model --port 8000\n"
    'curl -s 127.0.0.1:8000/v1/completions -H "Content-Type: application/json" -d \'{"prompt": "The file", "max_tokens": 20}\'',
)
@click.option("--host", default="127.0.0.1", help="Address to listen on; others than 127.0.0.1 let other machines in.", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, help="Port to listen on.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=2_048, help="Most tokens of a continuation.")
@click.option("--max-prompt-tokens", type=click.IntRange(1, 10_000_000), default=16_384, help="Most tokens of the prompts of a request.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=64, help="Requests that run or wait; others get status 503.")
def server(
    arguments: ConfigArguments, model: str | None, precision: str, host: str, port: int, max_tokens: int, max_prompt_tokens: int,
    concurrency: int,
) -> None:  # fmt: skip
    """Serve a model over HTTP, by OpenAI's completions API.

    There is no authentication: put a proxy in front of it before other machines may reach it.
    """
    config = arguments.load(model_only=model is not None)
    address = _model(model, config)

    from .http import command
    from .http.completions import Limits

    command.run(address, host, port, Limits(max_prompt_tokens, max_tokens), concurrency, config, precision)


@cli.command(
    sections=("run", "tracking"),
    example="packlm export --model runs/quickstart/model --to transformers --out exported\n"
    "packlm export --model runs/quickstart/model --to onnx --precision int8 --out exported",
)
@click.option("--to", "target", required=True, type=click.Choice(["transformers", "onnx"]), help="The library that is to run the model.")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="The folder to write.")
def export(arguments: ConfigArguments, model: str | None, precision: str, target: Literal["transformers", "onnx"], out: Path) -> None:
    """Write a model for Hugging Face transformers or ONNX Runtime, which run it without packlm."""
    config = arguments.load(model_only=model is not None)
    address = _model(model, config)
    output_paths.check_model_folder("--out", out, address)

    from .export import command

    command.run(address, target, out, precision, config)


@cli.command(
    sections=("run", "tracking"),
    example="packlm push --model runs/quickstart/model me/quickstart --private\n"
    "packlm push --model runs/quickstart/model me/quickstart --revision v2",
)
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Only the owner may read it; of a repository that is created now.")
@click.option("--revision", metavar="NAME", help="Branch of the repository, made if there is none.  [default: main]")
def push(
    arguments: ConfigArguments, model: str | None, precision: str, repository: str, private: bool, revision: str | None
) -> None:  # fmt: skip
    """Upload a model to the Hugging Face hub, for transformers."""
    config = arguments.load(model_only=model is not None)
    address = _model(model, config)

    from .export import command

    print(command.push(address, repository, private, revision, precision, config))


@cli.command("next", sections=("run", "tracking"), example='packlm next --model runs/quickstart/model --prompt "The function" --top 10')
@click.option("--prompt", required=True, metavar="TEXT", help="Text before the token.")
@click.option("--top", metavar="INTEGER", default="10", help="Number of tokens.")
def next_tokens(arguments: ConfigArguments, model: str | None, precision: str, prompt: str, top: str) -> None:
    """Print the most likely next tokens and their probabilities."""
    config = arguments.load(model_only=model is not None)
    request = validated(NextRequest, prompt=prompt, top=top)
    address = _model(model, config)

    from packlm.engine import Engine

    from .score.files import escape

    engine = Engine.load(address, store=config.tracking, precision=precision)
    print("token\tprobability")
    for token, probability in engine.next(request.prompt, request.top):
        print(f"{escape(token)}\t{probability:.6f}")


@cli.command(
    sections=("run", "generate", "tracking"),
    example='packlm generate --model runs/quickstart/model --prompt "This module" --samples 5 --top-p 0.9\n'
    "torchrun --nproc-per-node 4 -m packlm.stages.serve generate --model M --prompts prompts.txt --out out.jsonl",
)
@click.option("--prompts", metavar="FILE", help="One prompt a line, or JSONL; - is standard input.")
@click.option("--prompt", metavar="TEXT", help="A single prompt.")
@click.option("--out", metavar="FILE", help="Continuations: .jsonl or .parquet.  [default: JSONL on standard output]")
@setting_options("generate", *DECODING_SETTINGS)
@setting_options("run", "seed")
def generate(arguments: ConfigArguments, model: str | None, **options: Any) -> None:
    """Continue prompts by greedy decoding, sampling or beam search.

    With --model, options that are not given are those of the model's generation_config.json. Without --model, --prompt, --prompts, --out
    and --precision it is a stage: it continues the configured prompts with the model in `run.dir` and records the result in MLflow,
    unless that is done already. A job that was interrupted resumes when it is run again.
    """
    config = arguments.load(model_only=model is not None)
    _refuse_both("--prompt", options["prompt"], "--prompts", options["prompts"])
    output_paths.check({"--out": options["out"]}, [options["prompts"]])
    address = _model(model, config)

    from packlm import distributed

    from .generate import command, stage

    with distributed.start(config.train.device) as ranks:
        if model or options["prompts"] or options["prompt"] is not None or options["out"] or options["precision"] != "full":
            amends = model and not arguments.file  # the settings of the command line amend those that the model folder recommends
            settings = arguments.settings if amends else None
            command.run(address, command.GenerateOptions(model=model, **options), config, settings, ranks)
        else:
            stage.generate(config, ranks)


def _checked(
    arguments: ConfigArguments, model: str | None, sources: Sequence[str], outputs: Mapping[str, output_paths.Name]
) -> tuple[Config, list[str], str | Path]:
    """(configuration, input files, model) of a command that scores files; a `RequestError` before torch is imported if one is wrong."""
    config = arguments.load(model_only=model is not None)
    names = inputs.names(sources)
    output_paths.check(outputs, names)
    return config, names, _model(model, config)


def _model(model: str | None, config: Config) -> str | Path:
    """The model to use; a `RequestError` before torch is imported if it names none."""
    address = model or config.run.dir / "model"
    model_address.check(address)
    return address


def _refuse_both(option: str, value: object, other: str, other_value: object) -> None:
    if value not in (None, ()) and other_value not in (None, ()):
        raise RequestError(f"{other}: not allowed with {option}; give one of them")


def main() -> None:
    """The entry point `python -m serve`."""
    run(cli, "python -m serve")
