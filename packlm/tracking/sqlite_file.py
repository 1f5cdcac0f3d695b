"""The file of an SQLite store: created whole or not at all, and looked at before MLflow opens it.

MLflow creates its tables where the file is, in two seconds of some sixty migrations; killed within them it leaves a file that no version of
it can open again, and so do several processes at once. It also migrates the file of an older version without being asked, at the same risk.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from packlm.base import files
from packlm.base.errors import PacklmError

LOCK_SECONDS = 60.0
"""How long one process waits for another that is creating the store or the runs."""


def prepare(path: Path, preparing: Callable[[bool], None]) -> None:
    """Creates the database if there is none, and checks it.

    Args:
        preparing: is told when the work of creating it begins and ends.

    Raises:
        PacklmError: it is no database of this version of MLflow, or cannot be created.
    """
    if not _has_content(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path.with_name(path.name + ".lock")):
            _delete_leftovers(path)
            if not _has_content(path):
                preparing(True)
                _create(path)
                preparing(False)
    check(path)


def check(path: Path) -> None:
    """Raises a `PacklmError` if the file is no complete database of this version of MLflow."""
    aside = f"move it away (mv {path} {path}.damaged), and the next command creates a new one"
    if not path.is_file():
        raise PacklmError(f"{path}: not a file, so not an SQLite store; give another --tracking.uri")
    try:
        # Not mode=ro: what a killed process left of a transaction (a hot journal) is rolled back by the first reader that may write.
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=1.0)) as connection:
            connection.execute("PRAGMA schema_version")
            half_made = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '\\_alembic\\_tmp\\_%' ESCAPE '\\'").fetchall()
            version = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):  # locked, or not permitted: MLflow says so itself
            raise PacklmError(f"{path}: {error}") from None
        raise PacklmError(f"{path}: a database, but not one of MLflow's, or not a complete one; {aside}") from None
    except sqlite3.DatabaseError as error:
        raise PacklmError(f"{path}: damaged, or no SQLite database ({error}); {aside}") from None
    if half_made:
        raise PacklmError(f"{path}: MLflow was killed while it created or upgraded it; {aside}")
    from mlflow.store.db.utils import _get_latest_schema_revision

    if version != [(_get_latest_schema_revision(),)]:
        remedy = f"back it up, then run `mlflow db upgrade sqlite:///{path}`"
        raise PacklmError(f"{path}: has the tables of another version of MLflow; {remedy}")


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Holds the lock file `path` for the block, waiting for its holder; a `PacklmError` that names the holder after `LOCK_SECONDS`."""
    until = time.monotonic() + LOCK_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(files.lock(path))
                break
            except PacklmError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield


def _create(path: Path) -> None:
    """Makes the tables in a file beside `path`, and renames it when they are complete and on the disk."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside = _aside(path)
    store = SqlAlchemyStore(f"sqlite:///{aside}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()
    check(aside)
    with open(aside, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(aside, path)
    files.fsync_folder(path.parent)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.creating")


def _delete_leftovers(path: Path) -> None:
    """Deletes what a killed process left: the file itself, its lock's holder being gone, and SQLite's journal of it."""
    for leftover in path.parent.glob(_aside(path).name + "*"):
        leftover.unlink(missing_ok=True)


def _has_content(path: Path) -> bool:
    """Whether there is something at `path`; an empty file is what SQLite leaves if it is killed before the first table."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_size > 0 or not stat.S_ISREG(status.st_mode)
    return False
