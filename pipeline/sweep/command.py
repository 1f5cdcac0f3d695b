"""The command `sweep`: searches settings with Optuna (Akiba et al. 2019), by training after training on one dataset.

    runs/NAME/sweep/
      study.db                Optuna's storage: every trial, with its values and validations
      settings.json           what the sweep began with
      trials/0007/            a trial: `train/`, `model/`, `config.toml`, `log.txt`
      trials.tsv, sweep.svg, best.toml

A sweep that was stopped or killed continues: its trials are in the storage, and those that were running resume from their checkpoints.
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from packlm import dataset, distributed, tracking
from packlm.base import completion, escape, files, sealed_json
from packlm.base.errors import PacklmError, RequestError, Stopped
from packlm.config import Config
from packlm.model.finite import perplexity
from packlm.tracking import Recorder, metric_names

from .. import stages
from . import results
from .space import Choices, Space, with_values
from .trial import LOG, Trial, pin

log = logging.getLogger("packlm")

POLL_SECONDS = 0.3
MAX_FAILURES = 5
"""Trials that may fail in a row before the sweep ends."""
ENOUGH_TRIALS = 10
"""Complete trials from which the importance of settings is estimated: with five, all of one setting's effect was attributed to another."""
STARTUP_TRIALS = 5
"""Complete trials before others are compared with them, and stopped."""


def run(config: Config, space: Space, num_trials: int, jobs: int | None, pruning: bool) -> None:
    """Runs trials until `num_trials` have ended, and prints a table of the best.

    Args:
        jobs: trainings at the same time; by default one, or one for each GPU.
        pruning: whether trials are stopped whose validations are worse than the median of the others at the same point.

    Raises:
        RequestError: the run's folder holds another sweep, or there are not as many GPUs.
        PacklmError: several trials in a row failed.
        Stopped: a signal has stopped it.
    """
    optuna = _optuna()
    devices = [] if config.train.device == "cpu" else distributed.visible_gpus()
    most = len(devices) // config.train.processes
    jobs = jobs or max(1, most)
    if devices and jobs > most:
        raise RequestError(f"--jobs {jobs}: with train.processes = {config.train.processes} there are GPUs for {most} trainings at a time")
    stages.run_all(config, only=("preprocess",))
    manifest, folder = dataset.read_manifest(config.dataset.dir), config.run.dir / "sweep"
    if "validation" not in manifest.splits:
        raise RequestError(f"{config.dataset.dir}: no validation split, by which trials are compared; --corpus.validation_fraction 0.05")
    with files.lock(folder / ".lock"):
        _check_record(folder / "settings.json", _inputs(config, manifest, space))
        study = _study(optuna, folder, config, jobs, pruning)
        with tracking.stage(config, "sweep") as recorder, distributed.stop_signals() as signals:
            parent = tracking.parent_run(config)
            sweep = _Sweep(config, space, study, folder, recorder, parent)
            try:
                sweep.run(num_trials, jobs, devices, signals)
            finally:
                table = sweep.write()
    print(table)
    log.info("%s: the settings of the best trial, as a recipe; %s shows all", folder / "best.toml", folder / "sweep.svg")


class _Sweep:
    """A sweep at work."""

    def __init__(self, config: Config, space: Space, study: Any, folder: Path, recorder: Recorder, parent: str | None):
        self.config, self.space, self.study, self.folder, self.recorder, self.parent = config, space, study, folder, recorder, parent
        self.running: list[Trial] = []
        self.failures = 0
        """Trials in a row that failed."""

    def run(self, num_trials: int, jobs: int, devices: list[str], signals: dict[str, Any]) -> None:
        """Until `num_trials` have ended, or there is a signal to stop (`distributed.stop_signals`)."""
        waiting = [trial for trial in self.study.get_trials() if trial.state.name == "RUNNING"]
        ended = len(self.study.get_trials()) - len(waiting)
        while signals["signal"] is None:
            while len(self.running) < jobs and (waiting or ended + len(self.running) < num_trials):
                resumed = waiting.pop(0) if waiting else None
                slot = min(set(range(jobs)) - {trial.slot for trial in self.running})
                if not self._start(resumed, slot, pin(slot, jobs, self.config.train.processes, devices)):
                    ended += 1
            if not self.running:
                return
            time.sleep(POLL_SECONDS)
            for one in [*self.running]:
                self._look_at(one)
                if one.ended():
                    self._look_at(one)
                    self.running.remove(one)
                    self._end(one)
                    ended += 1
        for one in self.running:
            one.stop()
        while not all(one.ended() for one in self.running):
            time.sleep(POLL_SECONDS)
        raise Stopped(f"stopped by {signals['signal']}; continue by running the same command again")

    def _start(self, resumed: Any, slot: int, environment: dict[str, str]) -> bool:
        """Starts the training of a new trial, or continues that of one which was running; false if its values do not go together."""
        import optuna

        trial = self.study.ask() if resumed is None else optuna.trial.Trial(self.study, resumed._trial_id)
        values = {name: domain.suggest(trial, name) for name, domain in self.space.items()}
        text = ", ".join(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in values.items())
        try:
            config = with_values(self.config, values)
        except RequestError as error:
            log.warning("trial %d: %s: %s", trial.number, text, " ".join(str(error).split()))
            self._failed(trial, str(error))
            return False
        here = config.run.model_copy(
            update={"name": f"{config.run.name}-{trial.number:04d}", "dir": self.folder / "trials" / f"{trial.number:04d}"}
        )
        config = config.model_copy(update={"run": here})
        here.dir.mkdir(parents=True, exist_ok=True)
        if self.parent:
            tracking.nest(config, self.parent)
        log.info("trial %d%s: %s", trial.number, "" if resumed is None else " continues", text)
        self.running.append(Trial(trial, config, slot, environment, 0 if resumed is None else len(resumed.intermediate_values)))
        return True

    def _look_at(self, one: Trial) -> None:
        """Reports new validations, and stops a trial that the others leave behind."""
        for loss in one.validations()[one.reported :]:
            one.reported += 1
            one.trial.report(loss, one.reported)
            log.info("trial %d, validation %d: perplexity %.2f", one.number, one.reported, perplexity(loss))
        if not one.pruned and one.trial.should_prune():
            one.stop(pruned=True)

    def _end(self, one: Trial) -> None:
        """Records the result of a trial whose process has ended."""
        from optuna.trial import TrialState

        loss = one.best_loss() if one.status == 0 else None
        if loss is not None:
            self.study.tell(one.trial, loss)
            self.failures = 0
            best = perplexity(self.study.best_value)
            log.info(
                "trial %d: perplexity %.2f; the best, of trial %d, is %.2f",
                one.number,
                perplexity(loss),
                self.study.best_trial.number,
                best,
            )
            self.recorder.metrics({"sweep/perplexity": perplexity(loss), "sweep/best_perplexity": best}, one.number)
        elif one.pruned:
            self.study.tell(one.trial, state=TrialState.PRUNED)
            self.failures = 0
            log.info("trial %d: stopped, worse than the median of the others", one.number)
        else:
            log.warning("trial %d failed (exit status %d): %s (%s)", one.number, one.status, one.last_words(), one.config.run.dir / LOG)
            self._failed(one.trial, one.last_words())
        self._remove_checkpoints()

    def _failed(self, trial: Any, reason: str) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.FAIL)
        self.failures += 1
        if self.failures >= MAX_FAILURES:
            for one in self.running:
                one.stop()
            raise PacklmError(f"{self.failures} trials in a row failed; the last one: {' '.join(reason.split())}")

    def _remove_checkpoints(self) -> None:
        """Deletes those of all trials that have ended, but of the best one."""
        trials = self.study.get_trials(deepcopy=False)
        complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
        best = min(complete, key=lambda trial: trial.value).number if complete else None
        for trial in trials:
            if trial.state.name != "RUNNING" and trial.number != best:
                shutil.rmtree(self.folder / "trials" / f"{trial.number:04d}" / "train" / "checkpoints", ignore_errors=True)

    def importances(self) -> dict[str, float]:
        """How much of the differences between complete trials each setting explains (fANOVA, Hutter et al. 2014); most first."""
        import optuna

        if sum(trial.state.name == "COMPLETE" for trial in self.study.get_trials(deepcopy=False)) < ENOUGH_TRIALS:
            return {}
        try:
            found = optuna.importance.get_param_importances(self.study)
        except (ValueError, RuntimeError):  # all alike
            return {}
        return {name: float(share) for name, share in found.items()}

    def write(self) -> str:
        """Writes and records the results so far; returns a table of the best for people."""
        trials, importances = self.study.get_trials(deepcopy=False), self.importances()
        rows = results.rows(trials, self.space)
        figure = results.write(self.folder, trials, rows, self.config, self.space, importances)
        if trials:
            header, *values = rows
            self.recorder.table("trials.json", dict(zip(header, zip(*values, strict=True), strict=True)))
        self.recorder.figure("sweep.svg", figure)
        if (self.folder / "best.toml").exists():
            self.recorder.artifact(self.folder / "best.toml")
            self.recorder.summary({metric_names.BEST_PERPLEXITY: perplexity(self.study.best_value)})
        return results.table(rows, importances)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise PacklmError("sweep needs Optuna: pip install 'packlm[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, config: Config, jobs: int, pruning: bool) -> Any:
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve()}")
    study = optuna.create_study(storage=storage, study_name=config.run.name, direction="minimize", load_if_exists=True)
    # A continued sweep must not draw what it has drawn before.
    seed = (config.run.seed + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=jobs > 1)
    study.pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=1) if pruning else optuna.pruners.NopPruner()
    return study


def _inputs(config: Config, manifest: dataset.Manifest, space: Space) -> dict[str, dict[str, Any]]:
    """What may not change when a sweep is continued."""
    return {
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"processes", "device", "log_every", "keep", "samples", "timeout_seconds"}),
        "dataset": {"digest": manifest.digests["content"]},
        "space": {
            name: list(domain.values) if isinstance(domain, Choices) else domain.model_dump(mode="json") for name, domain in space.items()
        },
    }


def _check_record(path: Path, inputs: dict[str, dict[str, Any]]) -> None:
    """Writes what the sweep begins with; `RequestError` if the folder holds another one."""
    if not path.exists():
        sealed_json.write(path, inputs)
        return
    remedy = "choose another --run.name, or delete its folder"
    if changes := completion.differences(sealed_json.read(path, dict[str, dict[str, Any]], remedy), inputs):
        raise RequestError(escape.lines(f"{path.parent}: a sweep with other settings:", *(f"  {change}" for change in changes), remedy))
