"""Speed of text generation, compared with plain decoding loops.

    python benchmarks/decoding_speed.py [--hidden 200] [--layers 2] [--vocab 10000] [--tokens 12] [--rounds 3] [--seconds 0.3]
                                        [--cell lstm] [--threads 1] [--groups 5]

The model has random weights and generates `--tokens` tokens after each prompt of five, without stopping at `<eos>`. `plain`: one prompt, or
a batch of 64, read by torch's module (`nn.LSTM`), then a loop of that module, a linear layer and argmax, without ln P. The methods of a
group run in processes of their own and take turns; figures are medians over the rounds, ratios medians of the rounds' ratios. The first
line says how many prompts get different bits alone than in a batch of 64, with either, and after how many both generate the same tokens.
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
from torch import Tensor, nn

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
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="lstm")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--groups", type=int, default=5, help="how many of the comparisons to run")
    arguments = parser.parse_args()
    print(f"{' '.join(sys.argv[1:])}: {platform.machine()}, {arguments.threads} threads, torch {torch.__version__}", flush=True)
    print(batch_dependence(arguments), flush=True)
    # Each is compared with the first of its group.
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
    print("| | tokens/s | relative |\n|---|--:|--:|", flush=True)
    for group in groups[: arguments.groups]:
        sides = [Side(name, make_side, (arguments, prompts, settings)) for name, prompts, settings in group]
        rates = tokens_per_second(sides, arguments.rounds, arguments.seconds)
        speeds, first = medians(rates), group[0][0]
        for name, _, _ in group:
            relative = "" if name == first else f"{ratio(rates, name, first):.2f} of {first}"
            print(f"| {name} | {speeds[name]:,.0f} | {relative} |", flush=True)


def make_side(arguments: argparse.Namespace, count: int, settings: dict[str, object] | None) -> Step:
    """Generates from `count` prompts: with settings by `decoding.generate`, else by the plain loop; counts the tokens returned."""
    torch.set_num_threads(arguments.threads)
    model, prompts = random_model(arguments, count)
    if settings is None:
        module = torch_module(model)
        return lambda: plain(model, module, prompts, arguments.tokens)[0].numel()
    stepper = Stepper(model)
    spellings = [f" {number}".encode() for number in range(arguments.vocab)]
    detokenizer = Detokenizer(spellings, lambda prompt, ids: b"".join(spellings[id] for id in ids).decode())
    generate = Generate.model_validate(settings | {"max_tokens": arguments.tokens, "stop_at_eos": False})

    def run() -> int:
        generated = decoding.generate(stepper, prompts, generate, 1, EOS, detokenizer)
        return sum(len(item.ids) for generations in generated for item in generations)

    return run


def random_model(arguments: argparse.Namespace, count: int) -> tuple[LanguageModel, list[np.ndarray]]:
    """A model whose next-token distribution has about the entropy of a trained one, and prompts of equal length."""
    model = models.build(config.Model(cell=arguments.cell, layers=arguments.layers, hidden=arguments.hidden), arguments.vocab, 1).eval()
    with torch.no_grad():
        model.projection.weight.mul_(60.0)  # 5 nats with 200 units
    generator = np.random.default_rng(1)
    return model, [np.append(EOS, generator.integers(1, arguments.vocab, PROMPT_TOKENS - 1)) for _ in range(count)]


def torch_module(model: LanguageModel) -> nn.Module:
    """torch's module of all layers, with the weights of the model."""
    settings, layers = model.settings, model.recurrence.layers
    module: nn.Module = getattr(nn, settings.cell.upper())(settings.hidden, settings.hidden, settings.layers)
    weights = {name.replace("_l0", f"_l{index}"): weight for index, layer in enumerate(layers) for name, weight in layer.named_parameters()}
    module.load_state_dict(weights)
    return module.eval()


@torch.inference_mode()
def plain(model: LanguageModel, module: nn.Module, prompts: list[np.ndarray], tokens: int) -> tuple[Tensor, Tensor]:
    """A plain greedy loop: ([B, T] ids, [B, V] the last logits)."""
    outputs, state = module(model.embedding(torch.from_numpy(np.stack(prompts, 1).astype(np.int64))))
    logits = model.projection(outputs[-1])
    tokens_so_far = [logits.argmax(-1)]
    while len(tokens_so_far) < tokens:
        outputs, state = module(model.embedding(tokens_so_far[-1][None]), state)
        logits = model.projection(outputs[0])
        tokens_so_far.append(logits.argmax(-1))
    return torch.stack(tokens_so_far, 1), logits


def batch_dependence(arguments: argparse.Namespace) -> str:
    """How many prompts get different results alone than in a batch of 64."""
    torch.set_num_threads(arguments.threads)
    model, prompts = random_model(arguments, MANY)
    stepper, few = Stepper(model), 12
    generate = Generate(strategy="greedy", max_tokens=arguments.tokens, stop_at_eos=False)
    module = torch_module(model)
    tokens, logits = plain(model, module, prompts, arguments.tokens)
    ours = [generations[0] for generations in decoding.generate(stepper, prompts, generate, 1, EOS)]
    equal = sum(np.array_equal(row, generation.ids) for row, generation in zip(tokens.numpy(), ours, strict=True))
    counts = [0, 0]
    for index in range(few):
        counts[0] += not torch.equal(plain(model, module, [prompts[index]], arguments.tokens)[1][0], logits[index])
        counts[1] += decoding.generate(stepper, [prompts[index]], generate, 1, EOS)[0][0].log_prob != ours[index].log_prob
    differ = f"different bits alone than in a batch of {MANY}: plain {counts[0]} of {few} prompts, ours {counts[1]}"
    return f"{differ}; blocks of {stepper.invariant_widths()}; the same tokens after {equal} of {MANY} prompts"


if __name__ == "__main__":
    errors.run(main)
