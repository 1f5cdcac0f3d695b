"""Following a metrics file, and sending records in order to a store that goes down and comes up."""

import json
import threading
from pathlib import Path

import pytest

from packlm.tracking import outbox
from packlm.tracking.metrics_follower import MetricsFollower, Point, points_of
from packlm.tracking.outbox import Outbox


def line(step: int) -> str:
    return json.dumps({"step": step, "tokens": 10 * step, "time": 5.0, "train/lr": 0.5}) + "\n"


def test_a_line_gives_points_against_steps_and_tokens() -> None:
    record = {"step": 3, "tokens": 70, "time": 5.5, "validation/loss": 2.0, "train/lr": 0.1, "note": "text", "good": True}
    assert points_of(json.dumps(record).encode()) == [
        Point("validation/loss", 2.0, 5.5, 3),
        Point("by_tokens/validation_loss", 2.0, 5.5, 70),
        Point("train/lr", 0.1, 5.5, 3),
    ]


@pytest.mark.parametrize("damaged", [b"", b"{", b"[1]", b"7", b'{"step": 1}', b'{"step": "x", "time": 1}', b"\xff\n"])
def test_a_damaged_line_has_no_points(damaged: bytes) -> None:
    assert points_of(damaged) == []


def test_a_file_is_read_on_from_the_delivered_offset(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = MetricsFollower(path)
    assert follower.next() == ([], 0) and follower.remaining() == 0
    path.write_text(line(1) + line(2)[:-5])
    points, end = follower.next()
    assert [point.step for point in points] == [1]
    assert follower.next() == (points, end), "lines are read again until they are delivered"
    follower.offset = end
    path.write_text(line(1) + line(2))
    assert follower.remaining() == 1
    assert [point.step for point in follower.next()[0]] == [2]


def test_a_replaced_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "new"
    path.write_text(line(1) + line(2))
    follower = MetricsFollower(path)
    follower.offset = follower.next()[1]
    other.write_text(line(1) + line(2) + line(3))
    other.replace(path)
    assert [point.step for point in follower.next()[0]] == [1, 2, 3]


def test_long_files_are_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(step) for step in range(2000)))
    follower, parts = MetricsFollower(path), []
    while follower.remaining():
        points, end = follower.next()
        follower.offset = end
        parts.append(len(points))
    assert sum(parts) == 2000 and max(parts) <= 1000


class Store:
    """A session that stores what it gets, and can be down."""

    def __init__(self) -> None:
        self.items: list[object] = []
        self.up = True

    def send(self, points: list[Point]) -> None:
        self.add([point.step for point in points])

    def add(self, item: object) -> None:
        if not self.up:
            raise ConnectionError("no answer")
        self.items.append(item)

    def refused(self, error: Exception) -> bool:
        return self.up


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.05)


def test_records_arrive_in_order_after_an_interruption(tmp_path: Path) -> None:
    store, connected = Store(), threading.Event()
    store.up = False

    def connect() -> Store:
        if not connected.is_set():
            raise ConnectionError("not yet")
        return store

    sender = Outbox(connect, str)
    for item in range(5):
        sender.post(lambda store, item=item: store.add(item))
    connected.set()
    store.up = True
    assert sender.close(5) == (0, 0)
    assert store.items == [0, 1, 2, 3, 4]


def test_unsent_records_are_counted(tmp_path: Path) -> None:
    store = Store()
    store.up = False
    (tmp_path / "metrics.jsonl").write_text(line(1) + line(2))
    sender = Outbox(lambda: store, str)
    sender.follow(tmp_path / "metrics.jsonl")
    sender.post(lambda store: store.add("a"))
    assert sender.close(0.5) == (2, 1)
    assert sender.reason == "no answer"


def test_a_record_that_is_refused_does_not_hold_up_the_others() -> None:
    store = Store()
    sender = Outbox(lambda: store, str)
    refused = sender.post(lambda store: 1 / 0)
    sender.post(lambda store: store.add("next"))
    assert refused.result(5) is None
    assert sender.close(5) == (0, 0) and store.items == ["next"]
