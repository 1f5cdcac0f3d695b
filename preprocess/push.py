"""Uploads a dataset to the Hugging Face hub, where `load_dataset("OWNER/NAME", "sentences")` opens it."""

from pathlib import Path

from packlm import dataset, hub
from packlm.base import escape
from packlm.base.errors import PacklmError

from . import report

HIDDEN = (".*", "*/.*")
"""Patterns of files that are not uploaded (`*` matches `/` too)."""
OURS = tuple(f"{name}/*" for name in (*dataset.VIEWS, report.NAME))
"""Patterns of files that a push deletes if the new dataset lacks them: shards of an older dataset would be read with the new ones."""


def push(folder: Path, name: str, private: bool) -> str:
    """Uploads a dataset without hidden files to the repository `name` (`OWNER/NAME`), which is created if necessary; returns its URL.

    An interrupted push resumes when run again: files that have arrived are not sent twice. A large push consists of several commits, so
    the repository has files of the old and the new dataset until it is complete.

    Raises:
        RequestError: an invalid name, no login or one without write access, or a public repository although `private`.
        PacklmError: the dataset is damaged (nothing is sent), or the hub does not answer.
    """
    token = hub.login(name, "dataset")
    manifest = dataset.read_manifest(folder)
    if damaged := dataset.damaged(folder, manifest):
        lines = [f"{folder / file}: {problem}" for file, problem in damaged.items()]
        raise PacklmError(escape.lines(*lines, f"{folder}: damaged; nothing was sent; see `packlm preprocess verify {folder}`"))
    message = f"packlm dataset, content {manifest.digests['content']}"
    return hub.upload(folder, name, "dataset", token, message, private, ignore=HIDDEN, delete=OURS)
