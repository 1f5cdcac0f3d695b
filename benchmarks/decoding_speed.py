"""How fast text is generated, beside the loops that people would write without this project, both in one run.

    python benchmarks/decoding_speed.py [--hidden 200] [--layers 2] [--vocab 10000] [--tokens 12] [--rounds 3] [--seconds 0.3]
                                        [--cell lstm] [--threads 1]

A model with random weights (its speed is that of any weights), `--tokens` tokens after each prompt of five, without an end. `plain`: a
prompt at a time, or 64 side by side, each read by `LanguageModel.read`, then `LanguageModel.step` and argmax in a loop. Sides
run in processes of their own and take turns; every figure is the median over the rounds, every ratio the median of the rounds' ratios.
Before that: how often prompts get other bits alone than among 64, with either.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import argparse
import platform

import numpy as np
import torch
from side_by_side import Side, Step, medians, ratio, tokens_per_second
from torch import Tensor

from packlm import config
from packlm.base import errors
from packlm.config import Generate
from packlm.generation import decoding
from packlm.generation.prompt_batch import Detokenizer
from packlm.generation.stepper import Stepper
from packlm.model import language_model as models
from packlm.model.language_model import LanguageModel

EOS, PROMPT_TOKENS, MANY = 0, 5, 64


def main() -> None:
    """Runs the comparisons and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=10_000)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{' '.join(sys.argv[1:])}: {platform.machine()}, {given.threads} threads, torch {torch.__version__}", flush=True)
    print(company(given), flush=True)
    # Each side beside the first of its group.
    groups: list[list[tuple[str, int, dict[str, object] | None]]] = [
        [("plain, 1 prompt", 1, None), ("greedy, 1 prompt", 1, {"strategy": "greedy"})],
        [("plain, 64 prompts", MANY, None), ("greedy, 64 prompts", MANY, {"strategy": "greedy"})],
        [
            ("greedy, 1 prompt", 1, {"strategy": "greedy"}),
            ("beam 5, 1 prompt", 1, {"strategy": "beam"}),
            ("beam 5 by length, 1 prompt", 1, {"strategy": "beam", "length_penalty": 1.0}),
        ],
        [
            ("greedy, 64 prompts", MANY, {"strategy": "greedy"}),
            ("beam 5, 64 prompts", MANY, {"strategy": "beam"}),
            ("sample", MANY, {}),
            ("top-k 50", MANY, {"top_k": 50}),
            ("top-p 0.9", MANY, {"top_p": 0.9}),
            ("min-p 0.05", MANY, {"min_p": 0.05}),
            ("typical 0.9", MANY, {"typical_p": 0.9}),
            ("no 3-gram twice", MANY, {"no_repeat_ngram": 3}),
            ("a banned word", MANY, {"banned": ["12"]}),
            ("a stop string", MANY, {"stop": ["12345"]}),
        ],
        [("5 samples of 12 prompts", 12, {"samples": 5}), ("5 without replacement", 12, {"samples": 5, "replacement": False})],
    ]
    print("| | tokens/s | beside |\n|---|--:|--:|", flush=True)
    for group in groups:
        sides = [Side(name, make_side, (given, prompts, settings)) for name, prompts, settings in group]
        found = tokens_per_second(sides, given.rounds, given.seconds)
        speeds, first = medians(found), group[0][0]
        for name, _, _ in group:
            beside = "" if name == first else f"{ratio(found, name, first):.2f} of {first}"
            print(f"| {name} | {speeds[name]:,.0f} | {beside} |", flush=True)


def make_side(given: argparse.Namespace, count: int, settings: dict[str, object] | None) -> Step:
    """Generates from `count` prompts: by our decoding with settings, or, without, by the plain loop; all that comes back counts."""
    torch.set_num_threads(given.threads)
    model, prompts = made_up(given, count)
    if settings is None:
        return lambda: plain(model, prompts, given.tokens)[0].numel()
    stepper = Stepper(model)
    spellings = [f" {number}".encode() for number in range(given.vocab)]
    text = Detokenizer(spellings, lambda prompt, ids: b"".join(spellings[id] for id in ids).decode())
    wanted = Generate.model_validate(settings | {"max_tokens": given.tokens, "stop_at_eos": False})

    def run() -> int:
        found = decoding.generate(stepper, prompts, wanted, 1, EOS, text)
        return sum(len(item.ids) for generations in found for item in generations)

    return run


def made_up(given: argparse.Namespace, count: int) -> tuple[LanguageModel, list[np.ndarray]]:
    """A model whose next tokens are about as uncertain as a trained one's, and prompts of equal length."""
    model = models.build(config.Model(cell=given.cell, layers=given.layers, hidden=given.hidden), given.vocab, 1).eval()
    with torch.no_grad():
        model.projection.weight.mul_(60.0)  # 5 nats with 200 units
    generator = np.random.default_rng(1)
    return model, [np.append(EOS, generator.integers(1, given.vocab, PROMPT_TOKENS - 1)) for _ in range(count)]


@torch.inference_mode()
def plain(model: LanguageModel, prompts: list[np.ndarray], tokens: int) -> tuple[Tensor, Tensor]:
    """The loop anyone would write: ([B, T] ids, [B] log P of them)."""
    ids = torch.from_numpy(np.concatenate(prompts).astype(np.int64))
    log_probs, state = model.read(ids, np.array([len(own) for own in prompts]))
    found, total = [], torch.zeros(len(prompts))
    for time in range(tokens):
        best, chosen = log_probs.max(-1)
        found.append(chosen)
        total += best
        if time + 1 < tokens:
            log_probs, state = model.step(chosen, state)
    return torch.stack(found, 1), total


def company(given: argparse.Namespace) -> str:
    """How many prompts get other numbers alone than among 64."""
    torch.set_num_threads(given.threads)
    model, prompts = made_up(given, MANY)
    stepper, few = Stepper(model), 12
    wanted = Generate(strategy="greedy", max_tokens=given.tokens, stop_at_eos=False)
    together = plain(model, prompts, given.tokens)[1].tolist()
    ours = [own[0].log_prob for own in decoding.generate(stepper, prompts, wanted, 1, EOS)]
    counts = [0, 0]
    for place in range(few):
        counts[0] += plain(model, [prompts[place]], given.tokens)[1].item() != together[place]
        counts[1] += decoding.generate(stepper, [prompts[place]], wanted, 1, EOS)[0][0].log_prob != ours[place]
    return f"other bits alone than among {MANY}: plain {counts[0]} of {few} prompts, ours {counts[1]}; blocks of {stepper.steady_widths()}"


if __name__ == "__main__":
    errors.run(main)
