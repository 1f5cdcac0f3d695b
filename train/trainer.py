"""A training, in the order in which it happens: open, build, resume, then update, save and validate until the last step."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from packlm import dataset
from packlm.base import files, memory
from packlm.base.errors import PacklmError, Stopped
from packlm.batches import carried_state
from packlm.batches.segments import Segments
from packlm.config import Config
from packlm.distributed import Ranks, stop_signals
from packlm.evaluation.evaluate import Result
from packlm.model import folder as model_folder
from packlm.model.language_model import build
from packlm.model.precision import Precision
from packlm.model.recurrence import layout_name

from . import checkpoint, setup
from .export import finish
from .gradient_reduction import GradientReduction
from .optim import optimizers
from .optim.averaging import Average
from .optim.schedule import Schedule
from .progress import profiling
from .progress.samples import Sampler
from .progress.watch import Progress, watch
from .state import TrainState

log = logging.getLogger("packlm")

NAMED = 8
"""Segments of a bad batch that a message names; a file has all."""


@dataclass(frozen=True)
class Update:
    """What one update saw, over all ranks."""

    nll: float
    """Summed loss of the global batch, in nats."""
    tokens: int
    norm: float | None
    """Norm of the gradient before clipping; None where fp16 overflowed and nothing was updated."""
    fill: float
    """Share of tokens in the rectangles that hold the parts of the batch."""
    waited: float
    """Seconds in which this rank made its batches."""
    lr: float
    stop: bool
    """Whether a rank was told to stop."""


class Trainer:
    """One rank's part in a training; all its methods are called by all ranks."""

    def __init__(self, config: Config, manifest: dataset.Manifest, ranks: Ranks):
        """Opens the data, builds the model and goes to the latest checkpoint if there is one.

        Raises:
            RequestError: the settings cannot work with this dataset or number of processes.
        """
        settings = config.train
        memory.keep_freed()
        self.config, self.manifest, self.ranks = config, manifest, ranks
        self.folder = config.run.dir / "train"
        self.checkpoints = self.folder / "checkpoints"

        with ranks.first_alone():  # rank 0 fills the cache that the others read
            self.plan = setup.open_plan(config, manifest, ranks)
            self.validation = setup.open_validation(config, manifest)
        steps = itertools.accumulate(self.plan.steps(epoch) for epoch in range(settings.epochs))
        self.total_steps = min(max(steps), settings.max_steps or 2**62)

        self.precision = Precision(settings.precision, ranks.device)
        first = build(config.model, manifest.vocab_size, config.run.seed, settings.layout, settings.logits_mb << 20)
        self.model = first.to(ranks.device, self.precision.weights)
        if settings.bitwise:
            torch.set_num_threads(1)  # sums that are divided among threads are rounded differently by their number
        last = setup.checkpoint_of_all(self.checkpoints, ranks)
        if settings.init and last is None:
            setup.take_weights(self.model, config, manifest, ranks)
        self.together = GradientReduction(self.model, ranks, settings.accumulate, settings.bitwise)
        self.optimizers = optimizers.build(settings, self.model)
        self.schedule = Schedule(settings, self.total_steps)
        self.average = Average(settings, self.model)
        fresh = model_folder.trained_context(settings.segments, settings.reset) == "sentences"
        sampled = settings.samples if ranks.first else 0
        self.sampler = Sampler(config.dataset.dir, sampled, config.run.seed, fresh) if sampled else None
        self.warm_up()

        self.position = TrainState()
        self.watch: Progress | None = None
        """On rank 0, while the training runs."""
        self.stopping: Callable[[], bool] = lambda: False
        parts = (self.plan.streams_of(part, self.together.parts) for part in self.together.mine)
        self.carried = [self.model.recurrence.zero_state(len(streams)) for streams in parts]
        if last is not None:
            self.resume(last)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def ended(self) -> bool:
        """Whether no update is left, or validation has stopped improving for `train.patience`."""
        return self.position.step >= self.total_steps or self.schedule.exhausted

    def run(self, fresh: bool = False, profile: bool = False) -> None:
        """Trains until the last step; leaves `metrics.jsonl`, checkpoints, the model folder and `summary.json`.

        Args:
            fresh: a training that stood here was thrown away, and so this one's record is a new one.
            profile: leaves a trace of some steps in the folder `profile`.

        Raises:
            PacklmError: the loss or the gradient is not finite.
            Stopped: a signal came; started again, the training goes on from here.
        """
        settings, position, ranks = self.config.train, self.position, self.ranks
        with ExitStack() as stack:
            signals = stack.enter_context(stop_signals())
            self.stopping = lambda: signals["signal"] is not None
            if ranks.first:
                self.introduce()
                checkpoint.prepare(self.checkpoints)
                made = {"parameters": self.num_parameters, "processes": ranks.world}
                opened = watch(self.config, self.manifest, made, ranks.device, position, self.total_steps, fresh)
                self.watch = stack.enter_context(opened)
            step_done = stack.enter_context(profiling.profile(self.folder / "profile")) if profile and ranks.first else None
            started = time.monotonic() - position.seconds
            if self.validation_is_due() and not position.validated:
                self.validate()
            while not self.ended:
                update = self.update(self.stopping())
                position.seconds = time.monotonic() - started
                if self.watch:
                    self.watch.meter.add(update.nll, update.tokens, update.norm, update.fill, update.waited)
                    self.watch.updated(update.lr, position.tokens / self.manifest.split("train").tokens, self.precision.may_skip)
                if step_done:
                    step_done()
                due = self.validation_is_due()
                if due or update.stop or (settings.checkpoint_every and position.step % settings.checkpoint_every == 0):
                    self.save()
                if update.stop:
                    raise Stopped(f"stopped by {signals['signal'] or 'a signal'} after step {position.step:,}; the same command goes on")
                if due:
                    self.validate()
            if self.watch:
                if position.step < self.total_steps:
                    log.info("no new best in %d validations: stopped early (train.patience)", settings.patience)
                finish(self.config, self.manifest, position)
                self.watch.ended()

    def introduce(self) -> None:
        """Says what is about to be trained."""
        config, ranks = self.config, self.ranks
        layout = layout_name(config.train.layout, config.model.cell, ranks.device, self.precision.weights)
        log.info(
            "%s %s: %s parameters, %s of %s in %s layout, %s steps an epoch, %d process(es) on %s",
            f"step {self.position.step:,}: going on with" if self.position.step else "training", config.run.name,
            f"{self.num_parameters:,}", config.train.segments, config.dataset.dir, layout, f"{self.plan.steps(0):,}", ranks.world,
            ranks.device.type,
        )  # fmt: skip

    def update(self, stop: bool) -> Update:
        """One step of gradient descent on one global batch; says `stop` on all ranks if one of them does."""
        settings, model, position, together = self.config.train, self.config.model, self.position, self.together
        began = time.perf_counter()
        noise = (self.config.run.seed, position.step, model.locked) if model.noisy else None
        shares = [self.plan.share(position.epoch, position.step_in_epoch, part, together.parts) for part in together.mine]
        tokens, changes = shares[0].global_tokens, max(1, shares[0].global_tokens - shares[0].global_segments)
        filled = [len(share.targets) > 0 for share in shares]
        shares = [share if full else nothing(share) for share, full in zip(shares, filled, strict=True)]
        batches = [share.batch(self.ranks.device, noise) for share in shares]
        waited = time.perf_counter() - began
        losses: dict[int, Tensor] = {}
        found = np.zeros(together.parts + 2)  # the loss of each part; the rectangles that hold them; whether to stop
        found[-1] = stop

        def backward(part: int) -> None:
            own = part - together.mine.start
            share, batch, full = shares[own], batches[own], filled[own]
            start = carried_state.initial_state(self.model.recurrence.zero_state(1), self.carried[own], share) if batch.carry else None
            with self.precision.autocast():
                sums, final = together.module(batch, start, penalties=bool(settings.ar or settings.tar))
            # A token counts 1 / (tokens of the global batch), wherever it is, and a change from one to the next likewise.
            loss = (sums.nll + settings.ar * sums.activation) / tokens + settings.tar * sums.temporal_activation / changes
            self.precision.backward(loss * (together.weight if full else 0.0))
            if final is not None:
                self.carried[own] = carried_state.next_state(self.carried[own], final, share)
            if full:
                losses[part] = sums.nll.detach()
                found[-2] += len(share.lengths) * share.lengths.max()

        together.gradients(backward)
        self.precision.unscale(self.optimizers)
        clipped = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or math.inf)
        # Here alone, and for the sum over ranks, does the processor wait for the device.
        *nlls, norm = torch.stack([*losses.values(), clipped.double()]).tolist()
        found[list(losses)] = nlls
        found = self.ranks.sum(found)
        nll = sum(found[:-2].tolist())  # in the order of the parts
        skipped = self.precision.may_skip and not math.isfinite(norm)
        if not math.isfinite(nll) or not (math.isfinite(norm) or skipped):
            raise self.not_finite(nll / tokens, norm)
        lr = self.schedule.lr(position.step, position.epoch) * shares[0].lr_share
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = lr
        self.precision.step(self.optimizers, skipped)
        if not skipped:
            self.average.updated()

        position.step += 1
        position.validated = False
        position.tokens += tokens
        position.skipped += skipped
        position.step_in_epoch += 1
        if position.step_in_epoch == self.plan.steps(position.epoch):
            position.epoch, position.step_in_epoch = position.epoch + 1, 0
        return Update(nll, tokens, None if skipped else norm, tokens / found[-2], waited, lr, found[-1] > 0)

    def not_finite(self, loss: float, norm: float) -> PacklmError:
        """The error that stops a training before an update that is not finite; rank 0 leaves a file that names the batch."""
        position, path = self.position, self.folder / "not_finite.json"
        keys = self.plan.share(position.epoch, position.step_in_epoch, 0, 1).keys.tolist()
        if self.ranks.first:
            place = {"step": position.step + 1, "epoch": position.epoch, "step_in_epoch": position.step_in_epoch}
            files.write_json(path, place | {"loss": repr(loss), "gradient_norm": repr(norm), self.plan.unit: keys})
        some = ", ".join(map(str, keys[:NAMED])) + (f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else "")
        return PacklmError(
            f"step {position.step + 1:,} (epoch {position.epoch}, batch {position.step_in_epoch}): loss {loss}, gradient norm {norm}; "
            f"nothing was updated. The batch: {self.plan.unit} {some} of train ({path}). Lower train.lr or train.clip, with --rebuild or "
            "another --run.name"
        )

    def validation_is_due(self) -> bool:
        """Whether there is a validation after the updates made so far: before the first, regularly, and after the last."""
        position, every = self.position, self.config.train.validate_every
        regular = position.step % every == 0 if every else position.step_in_epoch == 0
        return regular or position.step == self.total_steps

    def validate(self) -> None:
        """Measures the validation split with the weights that would be kept, notes it in the checkpoint, and shows some samples."""
        position = self.position
        with self.average.in_use(), self.precision.whole():
            if self.validation is not None:
                result = self.validation.measure(self.model, self.ranks, self.together.parts, self.stopping)
                self.take_note(result)
            if self.watch and self.sampler:
                self.watch.samples(self.sampler.texts(self.model))
        position.validated = True
        if self.ranks.first and position.step:
            checkpoint.amend(self.checkpoints, position.step, self.state())
            checkpoint.keep(self.checkpoints, position.step, self.config.train.keep, self.position.best_step)
        if self.watch:
            self.watch.meter.restart_clock()

    def take_note(self, result: Result) -> None:
        """What follows from a validation: the schedule, the averaging and the best checkpoint go by it."""
        position, better = self.position, False
        numbers = {"loss": result.loss, "perplexity": result.perplexity, "tokens": result.tokens, "step": position.step}
        if position.step == 0:
            position.validation["before"] = numbers
        else:
            better = self.schedule.validated(result.loss)
            position.validation |= {"last": numbers} | ({"best": numbers} if better else {})
            if self.average.validated(result.loss):
                log.info("step %s: averaging of the weights begins", f"{position.step:,}")
        if self.watch:
            self.watch.validated(result.loss, result.perplexity, better)

    def state(self) -> dict[str, Any]:
        """Everything but tensors that a checkpoint keeps."""
        position = self.position
        position.schedule, position.precision, position.average = self.schedule.state(), self.precision.state(), self.average.state()
        position.meter = self.watch.meter.state() if self.watch else {}
        return asdict(position)

    def save(self) -> None:
        """Rank 0 writes a checkpoint, with the carried states of all ranks."""
        ranks, carried = self.ranks, []
        if self.plan.streams:
            sizes = [len(self.plan.streams_of(rank, ranks.world)) for rank in range(ranks.world)]
            carried = [ranks.gather(torch.cat(layer, 1), 1, sizes) for layer in zip(*self.carried, strict=True)]
        if ranks.first:
            tensors = checkpoint.with_prefix("model", model_folder.weights_of(self.model))
            tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(self.optimizers))
            tensors |= checkpoint.with_prefix("average", self.average.tensors())
            tensors |= {f"carried.{layer}": part for layer, part in enumerate(carried) if part is not None}
            checkpoint.save_checkpoint(self.checkpoints, self.position.step, tensors, self.state())
            checkpoint.keep(self.checkpoints, self.position.step, self.config.train.keep, self.position.best_step)

    def resume(self, step: int) -> None:
        """Takes everything from the checkpoint of a step, whatever the number of ranks that wrote it."""
        tensors, state = checkpoint.load_checkpoint(self.checkpoints, step)
        self.position = TrainState(**state)
        self.schedule.restore(self.position.schedule)
        self.precision.restore(self.position.precision)
        model_folder.restore_weights(self.model, checkpoint.under_prefix("model", tensors), self.checkpoints)
        checkpoint.restore_optimizers(self.optimizers, checkpoint.under_prefix("optimizer", tensors))
        self.average.restore(checkpoint.under_prefix("average", tensors), self.position.average)
        if self.plan.streams:
            carried = checkpoint.under_prefix("carried", tensors)
            layers = [carried[str(layer)].to(self.ranks.device) for layer in range(len(carried))]
            for own, part in enumerate(self.together.mine):
                streams = self.plan.streams_of(part, self.together.parts)
                self.carried[own] = tuple(layer[:, streams.start : streams.stop] for layer in layers)

    def warm_up(self) -> None:
        """A forward and backward pass whose gradients are thrown away.

        DDP orders its buckets anew after the first pass, and gradients are added up in that order: without this a resumed training
        differs from an undisturbed one in the last bit.
        """
        none = np.zeros(0, np.int64)
        sums, _ = self.together.module(nothing(Segments(none, none, none, none)).batch(self.ranks.device))
        (sums.nll * 0.0).backward()
        self.model.zero_grad()


def nothing(segments: Segments) -> Segments:
    """A segment to be weighted with 0, for a part without any, so that it takes part in the reduction of the gradients."""
    zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
    return replace(segments, inputs=zero, targets=zero, lengths=one, keys=zero, take=-one if len(segments.leave) else segments.take)
