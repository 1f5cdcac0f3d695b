"""A dry run: the size, cost and first batch of a training, without a step of it."""

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
"""How much of the first batch is shown."""


def describe(config: Config, manifest: dataset.Manifest, ranks: Ranks) -> str:
    """All ranks: parameters, operations, batches and memory of a training, and its first batch as text; nothing is written.

    The memory is measured: that of rank 0 after a forward and backward pass over its share of the first batch.
    """
    trainer = Trainer(config, manifest, ranks, resumes=False)
    plan, reduction = trainer.plan, trainer.reduction
    for part in reduction.local_parts:
        share = plan.share(0, 0, part, reduction.num_parts)
        if len(share.targets):
            sums, _ = trainer.model(share.batch(ranks.device))
            sums.nll.backward()
    first = plan.share(0, 0, 0, 1)
    flops = flops_per_token(trainer.model)
    tokens = trainer.mixture.tokens
    residual = "" if config.model.residual == "none" else ", residual connections"
    rows = {
        "model": f"{config.model.layers} x {config.model.cell}, {' and '.join(map(str, config.model.widths))} units{residual}, "
        f"vocabulary of {manifest.vocab_size:,}{', tied' if config.model.tied else ''}",
        "parameters": f"{trainer.num_parameters:,}",
        "operations": f"{flops / 1e6:,.1f} MFLOP per token, forward and backward; {flops * tokens / 1e12:,.1f} TFLOP per epoch",
        "data": f"{tokens:,} tokens as {config.train.segments} of {config.dataset.dir}",
        "batches": f"{plan.steps(0):,} per epoch, {trainer.total_steps:,} in total, each in {reduction.num_parts} part(s) on "
        f"{ranks.world} process(es)",
        "memory": f"{memory_mb(ranks.device):,.0f} MB in the first process after a pass over its share of the first batch",
        "first batch": f"{first.global_tokens:,} tokens in {first.global_segments:,} segments of at most {first.lengths.max():,}",
    }
    lines = [f"{config.run.name}: dry run", "", *(f"  {name:<12} {text}" for name, text in rows.items()), ""]
    return "\n".join(lines + texts(first, trainer.tokenizer))


def flops_per_token(model: LanguageModel) -> int:
    """Multiplications and additions per token in the matrix products of a pass: two per weight forward, four backward."""
    weights = sum(weight.numel() for weight in model.recurrence.parameters() if weight.ndim == 2)
    return 6 * (weights + model.projection.products_per_row)


def texts(segments: Segments, tokenizer: Tokenizer) -> list[str]:
    """The targets of the first segments of a batch, as lines of text."""
    lines = []
    for ids in np.split(segments.targets, np.cumsum(segments.lengths)[:-1])[:SHOWN_SEGMENTS]:
        text = tokenizer.decode(ids[:SHOWN_TOKENS].tolist(), skip_special_tokens=False)
        lines.append(f"  {text!r}{' ...' if len(ids) > SHOWN_TOKENS else ''}")
    remaining = len(segments.lengths) - len(lines)
    return lines + [f"  and {remaining:,} more"] * (remaining > 0)
