"""A training, in the order in which it happens: open, build, resume, then update, validate and save until the last step."""

import itertools
import logging
import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipeline import dataset, files, memory, tracking
from pipeline.config import Config
from pipeline.errors import PacklmError, RequestError, Stopped
from pipeline.log import progress
from train import carry, checkpoint, model_folder, optimizers, record
from train.batches import Plan, RowPlan, Segments, SentencePlan, StreamPlan
from train.distributed import Ranks, stop_signals
from train.evaluation import Validation, chosen_context
from train.metrics import Meter, MetricsWriter
from train.model import build
from train.precision import Precision
from train.recurrence import spoken
from train.schedule import Schedule
from train.views import Sentences, Stream

log = logging.getLogger("packlm")

QUIET_SECONDS = 60
"""Where there is no terminal to draw a bar on, a line says this often how far the training is."""


@dataclass
class Position:
    """How far a training has come: everything besides tensors that it needs to go on."""

    step: int = 0
    """Updates made."""
    epoch: int = 0
    step_in_epoch: int = 0
    tokens: int = 0
    """Targets trained on."""
    skipped: int = 0
    """Updates left out because fp16 overflowed."""
    seconds: float = 0.0
    """Time spent, over all restarts."""
    schedule: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    """Results `before` training, the `best` since, and the `last`."""


@dataclass(frozen=True)
class Update:
    """What one update saw, over all ranks."""

    nll: float
    """Summed loss of the global batch, in nats."""
    tokens: int
    norm: float | None
    """Norm of the gradient before clipping; None where fp16 overflowed and nothing was updated."""
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
            self.plan = open_plan(config, manifest, ranks)
            self.validation = open_validation(config, manifest)
        self.total_steps = min(settings.epochs * self.plan.num_steps, settings.max_steps or 2**62)

        self.precision = Precision(settings.precision, ranks.device)
        first = build(config.model, manifest.vocab_size, config.run.seed, settings.layout, settings.logits_mb << 20)
        self.model = first.to(ranks.device, self.precision.weights)
        self.optimizers = optimizers.build(settings, self.model)
        self.schedule = Schedule(settings, self.total_steps)
        self.parallel: nn.Module = self.model
        if ranks.world > 1:
            self.parallel = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.warm_up()

        self.position = Position()
        self.carried = self.model.recurrence.zero_state(len(self.plan.mine(ranks.rank, ranks.world)))
        self.resumed = bool(checkpoint.pointers(self.checkpoints))
        if self.resumed:
            self.resume()
        if ranks.first:
            layout = spoken(settings.layout, config.model.cell, ranks.device, self.precision.weights)
            log.info(
                "%s %s: %s parameters, %s of %s in %s layout, %s steps an epoch, %d process(es) on %s",
                f"step {self.position.step:,}: going on with" if self.resumed else "training", config.run.name, f"{self.num_parameters:,}",
                settings.segments, config.dataset.dir, layout, f"{self.plan.num_steps:,}", ranks.world, ranks.device.type,
            )  # fmt: skip

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def run(self, fresh: bool = False) -> None:
        """Trains until the last step; leaves `metrics.jsonl`, checkpoints, the model folder and `summary.json`.

        Args:
            fresh: a training that stood here was thrown away, and so this one's record is a new one.

        Raises:
            PacklmError: the loss or the gradient is not finite.
            Stopped: a signal came; started again, the training goes on from here.
        """
        config, settings, position = self.config, self.config.train, self.position
        self.metrics = MetricsWriter(self.folder / "metrics.jsonl", after_step=position.step) if self.ranks.first else None
        with (
            stop_signals() as signals,
            tracking.stage(config, "train", fresh) as recorder,
            progress(total=self.total_steps, initial=position.step, unit="step") as bar,
        ):
            if self.metrics:
                made = {"parameters": self.num_parameters, "processes": self.ranks.world}
                recorder.params(record.settings_of(config, self.manifest) | made)
                recorder.dataset(config.run.name, self.manifest.digests["content"], str(config.dataset.dir), "training")
                recorder.mirror(self.metrics.path)
            started = time.monotonic() - position.seconds
            if not self.resumed:
                self.validate()
            meter, spoken = Meter(), time.monotonic()
            while position.step < self.total_steps:
                update = self.update(stop=signals["signal"] is not None)
                position.seconds = time.monotonic() - started
                meter.add(update.nll, update.tokens, update.norm)
                bar.update()

                last = position.step == self.total_steps
                if self.metrics and (position.step % settings.log_every == 0 or last):
                    values = meter.read() | {"train/lr": update.lr, "train/epoch": position.tokens / self.manifest.split("train").tokens}
                    values |= {"train/skipped_steps": position.skipped} if self.precision.may_skip else {}
                    self.metrics.write(position.step, position.tokens, values)
                    state = f"loss {values['train/loss']:.3f}, {values['train/tokens_per_second']:,.0f} tokens/s"
                    bar.set_postfix_str(state)
                    if bar.disable and time.monotonic() > spoken + QUIET_SECONDS:
                        log.info("step %s of %s: %s", f"{position.step:,}", f"{self.total_steps:,}", state)
                        spoken = time.monotonic()
                due = position.step % settings.validate_every == 0 if settings.validate_every else position.step_in_epoch == 0
                if due or last:
                    self.save(best=self.validate())
                    meter.restart_clock()
                elif update.stop or (settings.checkpoint_every and position.step % settings.checkpoint_every == 0):
                    self.save(best=False)
                if update.stop and not last:
                    raise Stopped(f"stopped by {signals['signal'] or 'a signal'} after step {position.step:,}; the same command goes on")

            if self.ranks.first:
                self.finish()
                recorder.summary({f"validation/perplexity_{name}": value["perplexity"] for name, value in position.validation.items()})
                recorder.figure("loss.png", _figure(self.folder))

    def update(self, stop: bool) -> Update:
        """One step of gradient descent on one global batch; says `stop` on all ranks if one of them does."""
        settings, model, position, ranks = self.config.train, self.config.model, self.position, self.ranks
        segments = self.plan.share(position.epoch, position.step_in_epoch, ranks.rank, ranks.world)
        # A token counts 1 / (tokens of the global batch), wherever it is, and a change from one to the next likewise: DDP averages.
        part = ranks.world if segments.targets else 0.0
        per_token, per_change = part / segments.global_tokens, part / max(1, segments.global_tokens - segments.global_segments)
        segments = segments if segments.targets else nothing(segments)
        noise = (self.config.run.seed, position.step, model.locked) if model.noisy else None
        batch = segments.batch(ranks.device, noise)
        start = carry.start(self.model.recurrence, self.carried, segments) if batch.carry else None
        lr = self.schedule.lr(position.step, position.epoch)
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in self.optimizers):
            group["lr"] = lr

        self.model.zero_grad()
        with self.precision.autocast():
            sums, final = self.parallel(batch, start, penalties=bool(settings.ar or settings.tar))
        loss = (sums.nll + settings.ar * sums.activation) * per_token + settings.tar * sums.slowness * per_change
        self.precision.backward(loss)
        self.precision.unscale(self.optimizers)
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip or math.inf))
        total, stops = ranks.sum(np.array([float(sums.nll.detach()) if part else 0.0, stop], np.float64))
        skipped = self.precision.may_skip and not math.isfinite(norm)
        if not math.isfinite(total) or not (math.isfinite(norm) or skipped):
            raise PacklmError(
                f"step {position.step + 1:,} (epoch {position.epoch}, batch {position.step_in_epoch}): loss "
                f"{total / segments.global_tokens}, gradient norm {norm}; nothing was updated. Lower train.lr or train.clip, "
                "with --rebuild or another --run.name"
            )
        self.precision.step(self.optimizers)

        if final is not None:
            self.carried = carry.after(self.carried, final, segments)
        position.step += 1
        position.tokens += segments.global_tokens
        position.skipped += skipped
        position.step_in_epoch += 1
        if position.step_in_epoch == self.plan.num_steps:
            position.epoch, position.step_in_epoch = position.epoch + 1, 0
        return Update(float(total), segments.global_tokens, None if skipped else norm, lr, stops > 0)

    def validate(self) -> bool:
        """Measures the validation split and says whether the model is the best so far."""
        if self.validation is None:
            return True
        position = self.position
        result = self.validation.measure(self.model, self.ranks)
        numbers = {"loss": result.loss, "perplexity": result.perplexity, "tokens": result.tokens, "step": position.step}
        better = position.step > 0 and result.loss <= position.validation.get("best", numbers)["loss"]
        if position.step == 0:
            position.validation["before"] = numbers
        else:
            self.schedule.validated(result.loss)
            position.validation |= {"last": numbers} | ({"best": numbers} if better else {})
        if self.metrics:
            values = {"validation/loss": result.loss, "validation/perplexity": result.perplexity}
            self.metrics.write(position.step, position.tokens, values)
            log.info("step %s: validation perplexity %.2f%s", f"{position.step:,}", result.perplexity, " (best)" if better else "")
        return better

    def save(self, best: bool) -> None:
        """Rank 0 writes a checkpoint, with the carried states of all ranks."""
        sizes = [len(self.plan.mine(rank, self.ranks.world)) for rank in range(self.ranks.world)]
        carried = [self.ranks.gather(part, 1, sizes) for part in self.carried] if self.plan.streams else []
        if self.ranks.first:
            self.position.schedule, self.position.precision = self.schedule.state(), self.precision.state()
            tensors = checkpoint.with_prefix("model", model_folder.weights_of(self.model))
            tensors |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(self.optimizers))
            tensors |= {f"carried.{layer}": part for layer, part in enumerate(carried) if part is not None}
            checkpoint.save_checkpoint(self.checkpoints, self.position.step, tensors, asdict(self.position), best)

    def resume(self) -> None:
        """Takes everything from the latest checkpoint, whatever the number of ranks that wrote it."""
        tensors, state = checkpoint.load_checkpoint(self.checkpoints, "latest")
        self.position = Position(**state)
        self.schedule.restore(self.position.schedule)
        self.precision.restore(self.position.precision)
        model_folder.restore_weights(self.model, checkpoint.under_prefix("model", tensors), self.checkpoints)
        checkpoint.restore_optimizers(self.optimizers, checkpoint.under_prefix("optimizer", tensors))
        if self.plan.streams:
            mine, carried = self.plan.mine(self.ranks.rank, self.ranks.world), checkpoint.under_prefix("carried", tensors)
            parts = (carried[str(layer)] for layer in range(len(carried)))
            self.carried = tuple(part[:, mine.start : mine.stop].to(self.ranks.device) for part in parts)

    def warm_up(self) -> None:
        """A forward and backward pass whose gradients are thrown away.

        DDP orders its buckets anew after the first pass, and gradients are added up in that order: without this a resumed training
        differs from an undisturbed one in the last bit.
        """
        sums, _ = self.parallel(nothing(Segments([], [], [], 1, 1)).batch(self.ranks.device))
        (sums.nll * 0.0).backward()
        self.model.zero_grad()

    def finish(self) -> None:
        """Rank 0 writes the model folder from the best checkpoint, then the summary that says the training is complete."""
        config, position = self.config, self.position
        tensors, _ = checkpoint.load_checkpoint(self.checkpoints, "best")
        summary = {
            "steps": position.step, "skipped_steps": position.skipped, "epochs": position.step / self.plan.num_steps,
            "tokens": position.tokens, "seconds": position.seconds, "validation": position.validation,
        }  # fmt: skip
        about = {
            "name": config.run.name, "model": config.model.model_dump(mode="json"), "vocab_size": self.manifest.vocab_size,
            "text": self.manifest.settings["corpus"], "segments": config.train.segments, "reset": config.train.reset,
            "lossless": self.manifest.lossless, "dataset": self.manifest.digests, "numbers": summary,
        }  # fmt: skip
        folder = config.run.dir / "model"
        model_folder.save(folder, checkpoint.under_prefix("model", tensors), about, config.generate, config.dataset.dir)
        files.write_json(self.folder / "summary.json", summary)
        best = position.validation.get("best")
        reached = f", validation perplexity {best['perplexity']:.2f} at step {best['step']:,}" if best else ""
        log.info("trained %s steps in %.0f s%s: %s", f"{position.step:,}", position.seconds, reached, folder)


def open_plan(config: Config, manifest: dataset.Manifest, ranks: Ranks) -> Plan:
    """The batches of `train.segments`."""
    settings, folder = config.train, config.dataset.dir
    if settings.segments == "sentences":
        return SentencePlan(Sentences.open(folder, manifest, "train"), settings.global_batch_tokens, config.run.seed)
    stream = Stream.open(folder, manifest, "train")
    if settings.segments == "rows":
        return RowPlan(stream, manifest.length, settings.global_batch_tokens, config.run.seed)
    if ranks.world > settings.streams:
        raise RequestError(f"train.streams: {settings.streams} streams for {ranks.world} processes; each needs one of its own")
    return StreamPlan.even(stream, settings.streams, settings.window, settings.reset == "document")


def open_validation(config: Config, manifest: dataset.Manifest) -> Validation | None:
    """The validation split, to be measured with the context that the model is trained with unless `evaluate.context` says otherwise."""
    if "validation" not in manifest.splits:
        log.warning("the dataset has no validation split: the last weights are kept, whatever they are worth")
        return None
    trained = model_folder.trained_context(config.train.segments, config.train.reset)
    context = chosen_context(config.evaluate.context, trained)
    views = Sentences.open(config.dataset.dir, manifest, "validation"), Stream.open(config.dataset.dir, manifest, "validation")
    return Validation(*views, context, config.evaluate.streams, config.evaluate.batch_tokens)


def nothing(segments: Segments) -> Segments:
    """A segment to be weighted with 0, for a rank without any, so that it takes part in the reduction of the gradients."""
    take = [-1] if segments.leave else []
    return replace(segments, inputs=[np.zeros(1)], targets=[np.zeros(1)], keys=[0], take=take)


def _figure(folder: Any) -> Any:
    from train.curves import loss_figure  # matplotlib takes a second to import, which only the end needs

    return loss_figure(folder / "metrics.jsonl")
