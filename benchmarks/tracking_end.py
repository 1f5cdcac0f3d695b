"""How long a stage waits at its end for a healthy store: SQLite (a new file, an existing one) and a real `mlflow server`.

python benchmarks/tracking_end.py

A stage that took no time waits for the import of mlflow too, one that took ten seconds only for what it recorded last.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from packlm import config as configuration
from packlm import tracking
from tests.mlflow_faults import free_port, mlflow_server

LINES = 500
"""Lines of metrics of the stage."""


def seconds_at_end(folder: Path, uri: str, work_seconds: float) -> float:
    """The time from the last record of a stage, which worked for `work_seconds`, until it has ended."""
    run = Path(tempfile.mkdtemp(dir=folder))
    config = configuration.resolve({"run": {"name": "measured", "dir": run}, "tracking": {"uri": uri, "timeout_seconds": 60}})
    metrics = run / "train" / "metrics.jsonl"
    metrics.parent.mkdir()
    lines = [{"step": step, "tokens": step, "time": time.time(), "train/loss": 1.0, "train/lr": 0.1} for step in range(LINES)]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with tracking.stage(config, "train") as recorder:
        recorder.follow_metrics(metrics)
        recorder.params({"parameters": 1})
        recorder.table("samples.json", {"text": ["a text"] * 100})
        time.sleep(work_seconds)
        last = time.monotonic()
        recorder.artifact(metrics)
        recorder.metrics({"perplexity": 1.0})
        recorder.summary({"perplexity": 1.0})
    return time.monotonic() - last


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = f"sqlite:///{folder}/mlflow.db"
        print(f"SQLite, new file, stage of 0 s: {seconds_at_end(folder, store, 0):.1f} s")
        with mlflow_server(folder, port := free_port()):
            for name, uri in (("SQLite, existing file", store), ("mlflow server", f"http://127.0.0.1:{port}")):
                for work_seconds in (0, 10):
                    print(f"{name}, stage of {work_seconds} s: {seconds_at_end(folder, uri, work_seconds):.1f} s", flush=True)


if __name__ == "__main__":
    main()
