"""Faults end in a clear error or a correct resume: with real torchrun, signals and damaged files."""

import contextlib
import fcntl
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from packlm import config, distributed
from packlm.base import files, sealed_json
from packlm.base.errors import PacklmError
from train import checkpoint, stage
from train.results.export import export
from train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {
    "train.segments": "streams", "train.streams": 4, "train.window": 4, "train.epochs": 99, "train.max_steps": 200, "train.keep": 99,
    "train.validate_every": 100, "train.checkpoint_every": 20, "train.log_every": 1, "train.timeout_seconds": 10, "train.device": "cpu",
    "model.hidden": 8, "model.dropout": 0.2, "tracking.uri": "",
}  # fmt: skip
ALONE = distributed.Ranks(0, 1, torch.device("cpu"))
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks processes up in /proc")


class Torchrun:
    """A training by torchrun on two ranks."""

    def __init__(self, data: Path, run: Path, *options: str, torchrun: tuple[str, ...] = ()):
        self.run = run
        arguments = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *torchrun, str(ROOT / "train")]
        paths = ["--dataset.dir", str(data), "--run.dir", str(run)]
        self.process = subprocess.Popen(
            [*command, *paths, *arguments, *options], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
        )

    def rank(self, number: int) -> int:
        """Process id of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ranks = [int(word) for word in children if f"RANK={number}" in Path(f"/proc/{word}/environ").read_text().split("\0")]
        return ranks[0]

    def wait_for_step(self, step: int, folder: str = "train") -> None:
        """Waits until a complete line of metrics has the step; the last line may be incomplete."""
        until, path = time.monotonic() + 120, self.run / folder / "metrics.jsonl"
        while not path.exists() or not (lines := path.read_text().split("\n")[:-1]) or json.loads(lines[-1])["step"] < step:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.02)

    def end(self, seconds: float = 120) -> tuple[int, str]:
        """Waits for the end; returns exit status and standard error."""
        errors = self.process.communicate(timeout=seconds)[1]
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def undisturbed(random_data, tmp_path_factory):
    """Folder of a training without faults."""
    run = tmp_path_factory.mktemp("undisturbed")
    status, errors = Torchrun(random_data.folder, run).end()
    assert status == 0, errors
    return run


def assert_same_end(run: Path, undisturbed: Path) -> None:
    expected, actual = (checkpoint.load(folder / "train" / "checkpoints", 200) for folder in (undisturbed, run))
    assert expected[0].keys() == actual[0].keys()
    assert all(torch.equal(tensor, actual[0][name]) for name, tensor in expected[0].items())
    assert expected[1].validation == actual[1].validation


@needs_proc
def test_torchrun_replaces_a_killed_rank_and_the_training_resumes(random_data, undisturbed, tmp_path):
    """With --rebuild, which must not begin anew when torchrun restarts the ranks."""
    job = Torchrun(random_data.folder, tmp_path, "--rebuild", torchrun=("--max-restarts", "1"))
    job.wait_for_step(50, "rebuild/train")
    os.kill(job.rank(1), signal.SIGKILL)
    status, errors = job.end()
    assert status == 0, errors
    assert "so the other ranks stopped" in errors and "resuming quickstart from step" in errors, errors
    assert_same_end(tmp_path, undisturbed)


@needs_proc
@pytest.mark.long
def test_sigterm_to_torchrun_writes_a_checkpoint_of_the_last_step_within_twenty_seconds(random_data, undisturbed, tmp_path):
    job = Torchrun(random_data.folder, tmp_path)
    job.wait_for_step(30)
    job.process.terminate()
    status, errors = job.end(20)
    assert status != 0 and "resume by running the same command again" in errors
    last = json.loads((tmp_path / "train" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert checkpoint.latest(tmp_path / "train" / "checkpoints") == last < 200
    status, errors = Torchrun(random_data.folder, tmp_path).end()
    assert status == 0 and f"resuming quickstart from step {last}" in errors
    assert_same_end(tmp_path, undisturbed)


@needs_proc
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_frozen_rank_is_named(random_data, tmp_path, number):
    job = Torchrun(random_data.folder, tmp_path)
    job.wait_for_step(10)
    frozen = job.rank(number)
    os.kill(frozen, signal.SIGSTOP)
    try:
        errors = ""
        while "did not respond" not in errors:
            line = job.process.stderr.readline()
            assert line, errors
            errors += line
        assert f"rank {number} did not respond" in errors and "resume from the last checkpoint" in errors
    finally:
        os.kill(frozen, signal.SIGKILL)  # torchrun would wait half a minute for it
    assert job.end()[0] == 1


def settings(data: Path, run: Path, **train) -> config.Config:
    values = {"segments": "streams", "streams": 4, "window": 4, "epochs": 9, "max_steps": 30, "checkpoint_every": 10, "device": "cpu"}
    return config.resolve({
        "run": {"dir": str(run)}, "dataset": {"dir": str(data)}, "tracking": {"uri": ""}, "model": {"hidden": 8},
        "train": values | {"validate_every": 30, "samples": 0, "keep": 9} | train,
    })  # fmt: skip


class Killed(Exception):
    """Stands for the death of a process."""


class KilledAt25(Trainer):
    """A training that dies after 25 updates, five after a checkpoint."""

    def update(self, stop):
        if self.state.step == 25:
            raise Killed
        return super().update(stop)


def test_a_damaged_checkpoint_is_named_and_the_training_resumes_from_the_one_before(random_data, tmp_path, caplog):
    caplog.set_level("INFO", "packlm")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    Trainer(settings(random_data.folder, undisturbed), random_data.manifest, ALONE).run()
    with pytest.raises(Killed):
        KilledAt25(settings(random_data.folder, killed), random_data.manifest, ALONE).run()
    path = killed / "train" / "checkpoints" / "step-00000020" / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Trainer(settings(random_data.folder, killed), random_data.manifest, ALONE).run()
    assert f"{path}: damaged: expected sha256" in caplog.text and "resuming quickstart from step 10" in caplog.text
    expected, actual = (checkpoint.load(run / "train" / "checkpoints", 30)[0] for run in (undisturbed, killed))
    assert all(torch.equal(tensor, actual[name]) for name, tensor in expected.items())


def test_if_the_best_checkpoint_is_damaged_another_one_is_exported(random_data, tmp_path, caplog):
    trainer = Trainer(settings(random_data.folder, tmp_path, validate_every=10), random_data.manifest, ALONE)
    trainer.run()
    best = trainer.state.best_step
    (checkpoint.path_of(tmp_path / "train" / "checkpoints", best) / "tensors.safetensors").unlink()
    export(trainer.config, trainer.mixture, trainer.tokenizer_files, trainer.state)
    assert "exporting the weights of another checkpoint" in caplog.text
    numbers = files.read_json(tmp_path / "model" / "config.json")["numbers"]
    assert numbers["validation"]["best"]["step"] < best


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_a_checkpoint_is_refused_without_being_opened(random_data, tmp_path):
    with pytest.raises(Killed):
        KilledAt25(settings(random_data.folder, tmp_path), random_data.manifest, ALONE).run()
    folder = checkpoint.path_of(tmp_path / "train" / "checkpoints", 20)
    (folder / "tensors.safetensors").write_bytes(pickle.dumps(Touch(tmp_path / "opened")))
    state = files.read_json(folder / "state.json") | {"sha256": files.sha256(folder / "tensors.safetensors")}
    sealed_json.write(folder / "state.json", {key: value for key, value in state.items() if key != sealed_json.KEY})
    with pytest.raises(PacklmError, match="not a safetensors file"):
        Trainer(settings(random_data.folder, tmp_path), random_data.manifest, ALONE).run()
    assert not (tmp_path / "opened").exists()


def test_a_full_disk_is_named_with_its_free_space_and_the_training_resumes_when_there_is_room(random_data, tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(PacklmError, match=r"the disk is full \([\d,]+ bytes free\)"):
            Trainer(settings(random_data.folder, disk, checkpoint_every=1), random_data.manifest, ALONE).run()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        trainer = Trainer(settings(random_data.folder, disk, checkpoint_every=1), random_data.manifest, ALONE)
        assert trainer.resume_step > 0
        trainer.run()
        assert (disk / "model" / "config.json").exists()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("server", ["refuses", pytest.param("hangs", marks=pytest.mark.long)])
def test_a_tracking_server_that_does_not_answer_changes_nothing(random_data, tmp_path, server, caplog):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if server == "hangs":
            listening.listen(50)
        recorded = settings(random_data.folder, tmp_path / "recorded", samples=1)
        recorded = recorded.model_copy(update={"tracking": config.Tracking(uri=address)})
        Trainer(recorded, random_data.manifest, ALONE).run()
    assert "were not sent to" in caplog.text
    Trainer(settings(random_data.folder, tmp_path / "alone"), random_data.manifest, ALONE).run()
    expected, actual = (checkpoint.load(tmp_path / name / "train" / "checkpoints", 30) for name in ("alone", "recorded"))
    assert all(torch.equal(tensor, actual[0][name]) for name, tensor in expected[0].items())
    assert expected[1].model_dump(exclude={"seconds"}) == actual[1].model_dump(exclude={"seconds"})


def test_an_unwritable_folder_is_noticed_before_the_first_step(random_data, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "checkpoints").write_text("a file where the folder should be")
    trainer = Trainer(settings(random_data.folder, tmp_path), random_data.manifest, ALONE)
    with pytest.raises(PacklmError, match=r"checkpoints/\.writable: cannot be written"):
        trainer.run()
    assert trainer.state.step == 0


def test_a_second_training_in_a_folder_is_refused_naming_the_first(random_data, tmp_path):
    with files.lock(tmp_path / "train" / ".lock"):
        command = [sys.executable, str(ROOT / "train"), "--dataset.dir", str(random_data.folder), "--run.dir", str(tmp_path)]
        result = subprocess.run([*command, "--tracking.uri=", "--train.device=cpu"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and f"in use by process {os.getpid()} on" in result.stderr


@pytest.mark.long
def test_a_rank_stopped_while_another_dies_is_not_left_behind(random_data, tmp_path):
    """A rank that gets SIGTERM while another is dead ends too, instead of waiting for it."""
    job = Torchrun(random_data.folder, tmp_path)
    job.wait_for_step(10)
    ranks = [job.rank(number) for number in (0, 1)]
    os.kill(ranks[0], signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(ranks[1], signal.SIGTERM)
    assert job.end(60)[0] == 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_a_rank_without_its_torchrun_ends_soon_and_says_so(monkeypatch):
    """As after kill -9 of torchrun while its ranks start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("packlm.distributed.ranks.CONNECT_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(PacklmError, match=f"127.0.0.1:{port}: timed out after 1 s waiting for torchrun"), distributed.start("cpu"):
        pass
    assert time.monotonic() - began < 30


def test_a_training_killed_after_its_record_leaves_no_lock_once_it_is_run_again(random_data, tmp_path):
    configured = settings(random_data.folder, tmp_path, max_steps=2)
    stage.run(configured, random_data.manifest)
    lock = tmp_path / "train" / ".lock"
    lock.write_text("process 1 on another")
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        stage.run(configured, random_data.manifest)
        assert lock.exists()  # of a process that runs
    stage.run(configured, random_data.manifest)
    assert not lock.exists()
