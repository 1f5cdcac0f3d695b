"""What a training would be: its size, cost and first batch, without a step of it."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from packlm import dataset
from packlm.batches.segments import Segments
from packlm.config import Config
from packlm.distributed import Ranks
from packlm.model.language_model import LanguageModel

from .progress.metrics import memory_mb
from .trainer import Trainer

SHOWN_SEGMENTS, SHOWN_TOKENS = 5, 30
"""Of the first batch."""


def describe(config: Config, manifest: dataset.Manifest, ranks: Ranks) -> str:
    """All ranks: parameters, operations, batches and memory of a training, and its first batch as text.

    The memory is measured: rank 0's after one pass forward and backward over its share of the first batch. Nothing is written.
    """
    trainer = Trainer(config, manifest, ranks)
    settings, plan, together = config.train, trainer.plan, trainer.together
    shares = [plan.share(0, 0, part, together.parts) for part in together.mine]
    for share in shares:
        if len(share.targets):
            sums, _ = trainer.model(share.batch(ranks.device))
            sums.nll.backward()
    steps, first = plan.steps(0), plan.share(0, 0, 0, 1)
    flops = flops_per_token(trainer.model)
    tokens = manifest.split("train").tokens
    rows = {
        "model": f"{config.model.layers} x {config.model.cell}, {' and '.join(map(str, config.model.widths))} units, "
        f"{manifest.vocab_size:,} tokens{', tied' if config.model.tied else ''}",
        "parameters": f"{trainer.num_parameters:,}",
        "operations": f"{flops / 1e6:,.1f} MFLOP a token, forward and backward; {flops * tokens / 1e12:,.1f} TFLOP an epoch",
        "data": f"{tokens:,} tokens as {settings.segments} of {config.dataset.dir}",
        "batches": f"{steps:,} an epoch, {trainer.total_steps:,} in all, {together.parts} part(s) each, {ranks.world} process(es)",
        "memory": f"{memory_mb(ranks.device):,.0f} MB in the first process after a pass over its share of the first batch",
        "first batch": f"{first.global_tokens:,} tokens in {first.global_segments:,} segments, the longest of {first.lengths.max():,}",
    }
    lines = [f"{config.run.name}: what `train` would do", "", *(f"  {name:<12} {text}" for name, text in rows.items()), ""]
    return "\n".join(lines + texts(first, config.dataset.dir))


def flops_per_token(model: LanguageModel) -> int:
    """Multiplications and additions a token in the products of a pass: two for each weight that a token meets on the way forward, twice
    as many on the way back."""
    matrices = [weight for weight in model.recurrence.parameters() if weight.ndim == 2] + [model.projection.weight]
    return 6 * sum(weight.numel() for weight in matrices)


def texts(segments: Segments, folder: Path) -> list[str]:
    """The first segments of a batch, what they predict, as lines of text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = []
    for ids in np.split(segments.targets, np.cumsum(segments.lengths)[:-1])[:SHOWN_SEGMENTS]:
        text = tokenizer.decode(ids[:SHOWN_TOKENS].tolist(), skip_special_tokens=False)
        lines.append(f"  {text!r}{' ...' if len(ids) > SHOWN_TOKENS else ''}")
    left = len(segments.lengths) - len(lines)
    return lines + [f"  and {left:,} more"] * (left > 0)
