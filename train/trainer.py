"""A training, in the order in which it happens: open, build, warm up, resume, then update, checkpoint and validate until the last step."""

import itertools
import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import Optimizer

from packlm import dataset
from packlm.base import files, memory
from packlm.base.errors import PacklmError, Stopped
from packlm.batches import carried_state
from packlm.batches.segments import Segments
from packlm.config import Config
from packlm.distributed import Ranks, stop_signals
from packlm.model import folder as model_folder
from packlm.model import info as model_info
from packlm.model.finite import MAX_LOSS, NotFinite, first_not_finite
from packlm.model.language_model import build
from packlm.model.precision import Precision
from packlm.model.products import float32_library, has_bfloat16, type_under_autocast
from packlm.model.recurrence import layout_name

from . import checkpoint, setup
from .batches.mixture import open_mixture
from .gradient_reduction import GradientReduction
from .optim import optimizers
from .optim.averaging import Average
from .optim.schedule import Schedule
from .progress import profiling
from .progress.progress import Progress, report
from .progress.remaining import RemainingTime
from .progress.samples import Sampler
from .results import milestones, outcome
from .results.export import export
from .state import AverageState, ScheduleState, TrainState, ValidationResult
from .step import BatchPart, StepSums, Update, dummy_segment
from .without_effect import without_effect

log = logging.getLogger("packlm")

LISTED_SEGMENTS = 8
"""Segments of a batch that an error message lists; the file that it names has all."""


class Trainer:
    """One rank of a training; all ranks call the same methods."""

    def __init__(self, config: Config, manifest: dataset.Manifest, ranks: Ranks, resumes: bool = True, recorded: Config | None = None):
        """Opens the data and builds the model and all else that an update needs; writes nothing.

        Args:
            config: its `run.dir` is the folder of `train/` and `model/`.
            resumes: whether to resume from the latest checkpoint there, if there is one.
            recorded: the configuration of the run that MLflow records, whose folder may be another.

        Raises:
            RequestError: the settings do not work with this dataset or number of processes.
        """
        settings = config.train
        memory.keep_freed()
        self.config, self.manifest, self.ranks = config, manifest, ranks
        self.recorded = recorded or config
        self.folder = config.run.dir / "train"
        self.checkpoints = self.folder / "checkpoints"

        self.mixture = open_mixture(config, manifest)
        with ranks.main_process_first():  # rank 0 fills the cache that the others read
            self.plan = setup.open_plan(config, self.mixture, ranks)
            self.validation = setup.open_validation(config, manifest)
        # Everything of the dataset is open by now: should it be built anew meanwhile, this training ends with what it began with.
        self.tokenizer_files = dataset.read_files(config.dataset.dir, manifest, model_folder.TOKENIZER_FILES)
        self.tokenizer = Tokenizer.from_str(self.tokenizer_files["tokenizer.json"])
        steps = itertools.accumulate(self.plan.steps(epoch) for epoch in range(settings.epochs))
        self.total_steps = min(max(steps), settings.max_steps or 2**62)
        self.resume_step = setup.latest_checkpoint(self.checkpoints, ranks) if resumes else None

        with_bfloat16 = ranks.sum(np.array([float(has_bfloat16(ranks.device))]))[0]
        self.precision = Precision(settings.precision, ranks.device, with_bfloat16 == ranks.world)
        if settings.bitwise:
            torch.set_num_threads(1)  # sums that are divided among threads are rounded differently by their number
        model = build(config.model, manifest.vocab_size, config.run.seed, settings.layout, settings.logits_mb << 20)
        self.model = model.to(ranks.device, self.precision.weights_dtype)
        if settings.init and self.resume_step is None:
            setup.load_initial_weights(self.model, config, manifest, ranks)
        self.reduction = GradientReduction(self.model, ranks, settings.accumulate, settings.bitwise)
        self.schedule = Schedule(settings, self.total_steps)
        self.average = Average(settings, self.model)
        single_sentences = model_info.trained_context(settings.segments, settings.reset) == "sentences"
        num_samples = settings.samples if ranks.first else 0
        self.sampler = Sampler(self.tokenizer, num_samples, config.run.seed, single_sentences) if num_samples else None

        self.state = TrainState()
        local_streams = [self.plan.streams_of(part, self.reduction.num_parts) for part in self.reduction.local_parts]
        self.carried = [self.model.recurrence.zero_state(len(streams)) for streams in local_streams]
        """For each local part: the states of its streams."""
        self.progress: Progress | None = None
        """On rank 0, within `run`."""
        self.stopping: Callable[[], bool] = lambda: False
        """Whether this rank was told to stop."""

    @cached_property
    def optimizers(self) -> list[Optimizer]:
        """Built when first used, which a dry run does not: torch's import its compiler, for a second."""
        return optimizers.build(self.config.train, self.model, self.precision.multiplies_bfloat16)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def keeps_initial(self) -> bool:
        """Whether the weights of `train.init` are validated and kept: they are exported if no later ones are better."""
        return bool(self.config.train.init) and self.validation is not None

    @property
    def ended(self) -> bool:
        """Whether no update is left, or validation has not improved for `train.patience`."""
        return self.state.step >= self.total_steps or self.schedule.exhausted

    def run(self, fresh: bool = False, profile: bool = False) -> None:
        """Trains until the last step; writes `metrics.jsonl`, checkpoints, the model folder and `summary.json`.

        Args:
            fresh: starts a new run in MLflow, in place of that of a training that was thrown away.
            profile: writes a trace of some steps to the folder `profile`.

        Raises:
            PacklmError: a loss, a gradient or a weight is not finite, or the training diverged.
            Stopped: a signal stopped the training after a checkpoint.
        """
        settings, ranks = self.config.train, self.ranks
        self.warm_up()
        self.resume()
        state = self.state
        with ExitStack() as stack:
            signals = stack.enter_context(stop_signals())
            self.stopping = lambda: signals["signal"] is not None
            if ranks.first:
                self.introduce()
                checkpoint.prepare(self.checkpoints)
                facts = {
                    "parameters": self.num_parameters, "processes": ranks.world,
                    "precision": self.precision.name, "float32_products": float32_library(ranks.device),
                }  # fmt: skip
                remaining = RemainingTime(self.total_steps, settings.validate_every or self.plan.steps(0))
                opened = report(self.config, self.recorded, self.mixture, facts, ranks.device, state, remaining, fresh)
                self.progress = stack.enter_context(opened)
            profile_step = stack.enter_context(profiling.profile(self.folder / "profile")) if profile and ranks.first else None
            started = time.monotonic() - state.seconds
            if self.validation_is_due() and not state.validated:
                if self.keeps_initial and self.resume_step is None:
                    self.save()
                self.validate()
            while not self.ended:
                update = self.update(self.stopping())
                state.seconds = time.monotonic() - started
                if ranks.first:
                    milestones.write_passed(
                        self.config, self.mixture, self.tokenizer_files, self.model, self.average, state, update.tokens
                    )  # fmt: skip
                if self.progress:
                    self.progress.updated(update, state.tokens / self.mixture.tokens)
                if profile_step:
                    profile_step()
                due = self.validation_is_due()
                if due or update.stop or (settings.checkpoint_every and state.step % settings.checkpoint_every == 0):
                    self.save()
                if update.stop:
                    signal = signals["signal"] or "a signal"
                    raise Stopped(f"stopped by {signal} after step {state.step:,}; resume by running the same command again")
                if due:
                    self.validate()
            outcome.check(state.validation, self.manifest.vocab_size, settings.lr, self.remedy)
            if self.progress:
                if state.step < self.total_steps:
                    self.progress.stopped_early()
                export(self.config, self.mixture, self.tokenizer_files, state)
                self.progress.ended()

    def warm_up(self) -> None:
        """Runs a forward and backward pass on a dummy batch and discards its gradients.

        DDP reorders its buckets after the first pass, and gradients are summed in that order: without this, a resumed training would
        differ in the last bit from one that was not stopped.
        """
        empty = np.zeros(0, np.int64)
        sums, _ = self.reduction.module(dummy_segment(Segments(empty, empty, empty, empty)).batch(self.ranks.device))
        (sums.nll * 0.0).backward()
        self.model.zero_grad()

    def resume(self) -> None:
        """Restores everything from the latest checkpoint, if there is one, whatever the number of ranks that wrote it."""
        if self.resume_step is None:
            return
        tensors, self.state = checkpoint.load(self.checkpoints, self.resume_step)
        self.schedule.restore(self.state.schedule.model_dump())
        self.precision.restore(self.state.precision)
        model_folder.restore_weights(self.model, checkpoint.under_prefix("model", tensors), self.checkpoints)
        checkpoint.restore_optimizers(self.optimizers, checkpoint.under_prefix("optimizer", tensors))
        self.average.restore(checkpoint.under_prefix("average", tensors), self.state.average.model_dump())
        if self.plan.streams:
            carried = checkpoint.under_prefix("carried", tensors)
            layers = [carried[str(layer)].to(self.ranks.device) for layer in range(len(carried))]
            for index, part in enumerate(self.reduction.local_parts):
                streams = self.plan.streams_of(part, self.reduction.num_parts)
                self.carried[index] = tuple(layer[:, streams.start : streams.stop] for layer in layers)

    def introduce(self) -> None:
        """Logs what is about to be trained."""
        config, ranks = self.config, self.ranks
        with self.precision.autocast():
            product_type = type_under_autocast(self.precision.weights_dtype, ranks.device)
        layout = layout_name(config.train.layout, config.model.cell, max(config.model.widths), ranks.device, product_type)
        log.info(
            "%s: %s parameters, %s of %s, %s, layout %s, %s steps per epoch, %d process(es) on %s",
            f"resuming {config.run.name} from step {self.state.step:,}" if self.state.step else f"training {config.run.name}",
            f"{self.num_parameters:,}", config.train.segments, config.dataset.dir, self.precision.name, layout, f"{self.plan.steps(0):,}",
            ranks.world, ranks.device.type,
        )  # fmt: skip
        if ignored := without_effect(config):
            log.warning("without effect: %s", "; ".join(ignored))
        if config.train.schedule == "wsd":
            log.info("the learning rate decays after step %s of %s", f"{self.schedule.last_stable_step:,}", f"{self.total_steps:,}")
        if config.train.init and not self.state.step:
            log.info("starting from the weights of %s, with train.lr = %g", config.train.init, config.train.lr)

    def update(self, stop: bool) -> Update:
        """Takes one optimizer step on one global batch; a `stop` of any rank is reported to all."""
        settings, state, reduction = self.config.train, self.state, self.reduction
        started = time.perf_counter()
        parts = [self.load_part(part) for part in reduction.local_parts]
        data_seconds = time.perf_counter() - started
        tokens = parts[0].segments.global_tokens
        num_changes = max(1, tokens - parts[0].segments.global_segments)  # pairs of neighbouring tokens within segments
        local_nll: dict[int, Tensor] = {}
        sums = StepSums([0.0] * reduction.num_parts, stop=float(stop))

        def backward(part: int) -> None:
            index = part - reduction.local_parts.start
            segments, batch, is_dummy = parts[index]
            zero = self.model.recurrence.zero_state(1)
            initial = carried_state.initial_state(zero, self.carried[index], segments) if batch.return_state else None
            with self.precision.autocast():
                losses, final = reduction.module(batch, initial, penalties=bool(settings.ar or settings.tar))
            # A token counts 1 / (tokens of the global batch) on whichever rank it is, and a change from one to the next likewise.
            loss = (losses.nll + settings.ar * losses.activation) / tokens + settings.tar * losses.temporal_activation / num_changes
            self.precision.backward(loss * (0.0 if is_dummy else reduction.loss_scale))
            if final is not None:
                self.carried[index] = carried_state.next_state(self.carried[index], final, segments)
            if not is_dummy:
                local_nll[part] = losses.nll.detach()
                sums.padded_tokens += float(len(segments.lengths) * segments.lengths.max())

        reduction.run(backward)
        self.precision.unscale(self.optimizers)
        clipped = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or math.inf)
        # Only here, and in the reduction of the sums, does the CPU wait for the device.
        *nlls, norm = torch.stack([*local_nll.values(), clipped.double()]).tolist()
        for part, nll in zip(local_nll, nlls, strict=True):
            sums.part_nll[part] = nll
        sums = sums.reduce(self.ranks)
        nll = sum(sums.part_nll)  # in the order of the parts
        skipped = not math.isfinite(norm) and self.precision.may_skip
        if not nll / tokens < MAX_LOSS or not (math.isfinite(norm) or skipped):
            raise self.not_finite(nll / tokens, norm)
        lr = self.schedule.lr(state.step, state.epoch, parts[0].segments.window)
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = lr
        self.precision.step(self.optimizers, skipped)
        if not skipped:
            self.average.updated()

        state.step += 1
        state.validated = False
        state.tokens += tokens
        state.skipped += skipped
        state.step_in_epoch += 1
        if state.step_in_epoch == self.plan.steps(state.epoch):
            state.epoch, state.step_in_epoch = state.epoch + 1, 0
        return Update(nll, tokens, None if skipped else norm, tokens / sums.padded_tokens, data_seconds, lr, sums.stop > 0)

    def load_part(self, part: int) -> BatchPart:
        """A part of the next global batch; a dummy if it has no segments."""
        state, model = self.state, self.config.model
        dropout = (self.config.run.seed, state.step, model.locked) if model.has_dropout else None
        segments = self.plan.share(state.epoch, state.step_in_epoch, part, self.reduction.num_parts)
        is_dummy = len(segments.targets) == 0
        segments = dummy_segment(segments) if is_dummy else segments
        return BatchPart(segments, segments.batch(self.ranks.device, dropout), is_dummy)

    def not_finite(self, loss: float, norm: float) -> PacklmError:
        """The error for an update that is not finite, which is not made; rank 0 writes a file that lists the batch."""
        state, path = self.state, self.folder / "not_finite.json"
        keys = self.plan.share(state.epoch, state.step_in_epoch, 0, 1).keys.tolist()
        if self.ranks.first:
            position = {"step": state.step + 1, "epoch": state.epoch, "step_in_epoch": state.step_in_epoch}
            files.write_json(path, position | {"loss": repr(loss), "gradient_norm": repr(norm), self.plan.unit: keys})
        more = f" and {len(keys) - LISTED_SEGMENTS:,} more" if len(keys) > LISTED_SEGMENTS else ""
        return PacklmError(
            f"epoch {state.epoch + 1}, step {state.step + 1:,}: loss {loss}, gradient norm {norm}; "
            f"the update was not made. The batch: {self.plan.unit} {', '.join(map(str, keys[:LISTED_SEGMENTS]))}{more} of train ({path}). "
            f"{self.remedy}"
        )

    @property
    def remedy(self) -> str:
        """What to do about a training that diverged."""
        return f"Lower train.lr or {'train.clip' if self.config.train.clip else 'set train.clip'}, with --rebuild or another --run.name"

    def validation_is_due(self) -> bool:
        """Whether to validate at this step: before the first update, every `train.validate_every` updates or epoch, and after the last."""
        state, every = self.state, self.config.train.validate_every
        regular = state.step % every == 0 if every else state.step_in_epoch == 0
        return regular or state.step == self.total_steps

    def validate(self) -> None:
        """Measures the validation split with the weights that would be exported, records it in the checkpoint, and samples texts."""
        state, started = self.state, time.monotonic()
        with self.average.in_use(), self.precision.without_rounding():
            if self.validation is not None:
                try:
                    result = self.validation.measure(self.model, self.ranks, self.reduction.num_parts, self.stopping)
                except NotFinite as error:
                    if self.ranks.first:  # the checkpoint of this step is of no use
                        checkpoint.prune(self.checkpoints, state.step - 1, self.config.train.keep, state.best_step)
                    raise PacklmError(f"step {state.step:,}: validation: {error}. {self.remedy}") from None
                self.record_validation(
                    ValidationResult(loss=result.loss, perplexity=result.perplexity, tokens=result.tokens, step=state.step)
                )
            if self.progress and self.sampler:
                self.progress.sampled(self.sampler.sample(self.model))
        state.validated = True
        if self.ranks.first and (state.step or self.keeps_initial):
            checkpoint.replace_state(self.checkpoints, self.snapshot())
            checkpoint.prune(self.checkpoints, state.step, self.config.train.keep, state.best_step)
        if self.progress:
            self.progress.validation_took(time.monotonic() - started)

    def record_validation(self, result: ValidationResult) -> None:
        """Adjusts schedule, averaging and best step to a validation."""
        state, best = self.state, False
        if state.step == 0:
            state.validation.before = result
            if self.keeps_initial:
                self.schedule.validated(result.loss)
                state.validation.best = result
        else:
            diverged = outcome.is_diverged(result.loss, state.validation, self.manifest.vocab_size)
            best = self.schedule.validated(result.loss) and not diverged
            state.validation.last = result
            if diverged:
                log.warning(
                    "step %s: the validation is worse than a uniform guess over the vocabulary: the training diverges", f"{state.step:,}"
                )
            if best:
                state.validation.best = result
            if self.average.validated(result.loss) and self.progress:
                self.progress.log("start averaging the weights")
        if self.progress:
            self.progress.validated(result, best)

    def snapshot(self) -> TrainState:
        """The state to save, with those of schedule, averaging, precision and metrics."""
        state = self.state
        state.schedule, state.average = ScheduleState(**self.schedule.state()), AverageState(**self.average.state())
        state.precision = self.precision.state()
        if self.progress:
            state.metric_sums = self.progress.meter.sums
        return state

    def save(self) -> None:
        """Writes a checkpoint on rank 0, with the carried states of all ranks.

        Raises:
            PacklmError: a number in it is not finite; nothing is written.
        """
        ranks, carried, tensors = self.ranks, [], dict[str, Tensor]()
        if self.plan.streams:
            sizes = [len(self.plan.streams_of(rank, ranks.world)) for rank in range(ranks.world)]
            carried = [ranks.gather(torch.cat(layer, 1), 1, sizes) for layer in zip(*self.carried, strict=True)]
        if ranks.first:
            tensors = checkpoint.with_prefix("model", model_folder.weights_of(self.model))
            tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(self.optimizers))
            tensors |= checkpoint.with_prefix("average", self.average.tensors())
            tensors |= {f"carried.{index}": states for index, states in enumerate(carried) if states is not None}
        wrong = first_not_finite(tensors)
        if ranks.sum(np.array([float(wrong is not None)]))[0]:  # all ranks end
            raise PacklmError(f"step {self.state.step:,}: {wrong} is not finite after the update; no checkpoint was written. {self.remedy}")
        if ranks.first:
            checkpoint.save(self.checkpoints, tensors, self.snapshot())
            checkpoint.prune(self.checkpoints, self.state.step, self.config.train.keep, self.state.best_step)
