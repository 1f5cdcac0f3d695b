"""Trainings on several hosts, played by network namespaces of this machine: `python -m tests.torture.hosts` as root, or `make hosts`.

Every host has its own address, its own loopback device and its own cache of datasets, and shares the files with the others. Three
trainings must end with the same bits: on one host; on several; and on several of which one is lost, and all are started again.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packlm.base import files

PORT = 29_500
WORDS = ["the", "a", "cat", "dog", "tree", "river", "sees", "eats", "under", "over", "small", "green", "quietly", "often"]
SETTINGS = [
    "--train.segments", "streams", "--train.streams", "8", "--train.window", "10", "--train.epochs", "3", "--train.checkpoint_every", "20",
    "--train.bitwise", "4", "--train.device", "cpu", "--train.samples", "0", "--model.hidden", "32", "--tracking.uri", "",
]  # fmt: skip


@contextmanager
def hosts(count: int) -> Iterator[list[str]]:
    """The names of network namespaces that are connected by a bridge; host i has the address 10.83.0.(i + 1)."""
    names, bridge = [f"packlm{index}" for index in range(count)], "packlm-bridge"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for index, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", f"{name}-out", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}-out", "master", bridge)
            ip("link", "set", f"{name}-out", "up")
            ip("-n", name, "addr", "add", f"10.83.0.{index + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "link", "del", f"{name}-out"], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "del", bridge], stderr=subprocess.DEVNULL)


def start(host: str, folder: Path, run: str, words: list[str], per_host: int = 1) -> subprocess.Popen[bytes]:
    """torchrun on a host, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HOME": str(folder / f"cache-{host}"), "GLOO_SOCKET_IFNAME": "eth0"}
    command = [
        "ip", "netns", "exec", host, sys.executable, "-m", "packlm.distributed.torchrun", "--nproc-per-node", str(per_host), *words,
        "-m", "packlm.stages.train", "--run.name", run, "--run.dir", str(folder / run), "--dataset.dir", str(folder / "data"), *SETTINGS,
    ]  # fmt: skip
    log = (folder / f"{run}-{host}.log").open("ab")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def ended(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    for process in processes:
        if process.wait(timeout=600):
            logs = "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(folder.glob("*.log")))
            raise SystemExit(f"torchrun ended with status {process.returncode}\n{logs}")


def checkpoints(folder: Path, run: str) -> int:
    return len(list((folder / run / "train" / "checkpoints").glob("step-*")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=2)
    count = parser.parse_args().hosts
    if os.geteuid():
        raise SystemExit("network namespaces are made by root only")
    folder = Path(tempfile.mkdtemp(prefix="packlm-hosts-"))
    generator = random.Random(1)
    lines = [" ".join(generator.choice(WORDS) for _ in range(generator.randint(3, 20))) for _ in range(1_500)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "packlm.stages.preprocess", "--run.name", "data", "--corpus.train", str(folder / "text.txt"),
         "--corpus.document", "line", "--corpus.validation_fraction", "0.1", "--dataset.dir", str(folder / "data"), "--tracking.uri", ""],
        check=True,
    )  # fmt: skip
    with hosts(count) as names:
        ended([start(names[0], folder, "one-host", ["--standalone"], per_host=count)], folder)
        print(f"one host, {count} processes: done")

        fixed = ["--nnodes", str(count), "--master-addr", "10.83.0.1", "--master-port", str(PORT)]

        def start_all(run: str) -> list[subprocess.Popen[bytes]]:
            return [start(name, folder, run, [*fixed, "--node-rank", str(rank)]) for rank, name in enumerate(names)]

        ended(start_all("several"), folder)
        print(f"{count} hosts: done")

        processes = start_all("one-lost")
        while not checkpoints(folder, "one-lost"):
            ended([process for process in processes if process.poll() is not None], folder)
            time.sleep(0.05)
        lost = subprocess.run(["ip", "netns", "pids", names[-1]], capture_output=True, text=True, check=True).stdout.split()
        for pid in map(int, lost):
            os.kill(pid, signal.SIGKILL)
        statuses = [process.wait(timeout=120) for process in processes]
        print(f"host {names[-1]} was lost after the first checkpoint; torchrun ended on the others with status {statuses[0]}")
        ended(start_all("one-lost"), folder)
        print("started again on all, the training ended")
    digests = {run: files.sha256(folder / run / "model" / "model.safetensors") for run in ("one-host", "several", "one-lost")}
    for run, digest in digests.items():
        print(f"{run:<12}{digest}")
    if len(set(digests.values())) > 1:
        raise SystemExit(f"different weights; the files are in {folder}")
    shutil.rmtree(folder)
    print("the same weights, to the bit")


if __name__ == "__main__":
    main()
