"""Uploads a dataset to the Hugging Face hub, where `load_dataset("OWNER/NAME", "sentences")` opens it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packlm import dataset
from packlm.base import escape
from packlm.base.credentials import learn, without_credentials
from packlm.base.errors import PacklmError, RequestError

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
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, validate_repo_id

    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise RequestError(f"{name!r}: a dataset on the hub is named OWNER/NAME; OWNER is a user or an organization")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(f"{name!r} is not a valid name on the hub: {_first_line(error)}") from None
    token = get_token()
    if token is None:
        raise RequestError(f"not logged in to {constants.ENDPOINT}: run `hf auth login`, or set HF_TOKEN to a token with write access")
    manifest = dataset.read_manifest(folder)
    if damaged := dataset.damaged(folder, manifest):
        lines = [f"{folder / file}: {problem}" for file, problem in damaged.items()]
        raise PacklmError(escape.lines(*lines, f"{folder}: damaged; nothing was sent; see `packlm preprocess verify {folder}`"))

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    api = HfApi(token=token)
    learn(token)  # it may come from a file
    with _errors_in_one_line(name):
        # None means the owner's default.
        url = str(api.create_repo(name, repo_type="dataset", private=private or None, exist_ok=True))
        if private and not api.repo_info(name, repo_type="dataset").private:
            raise RequestError(f"{url} exists and is public; make it private in its settings, or push to another name")
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            commit_message=f"packlm dataset, content {manifest.digests['content']}",
            ignore_patterns=list(HIDDEN),
            delete_patterns=list(OURS),
        )
    return url


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """Turns any exception of huggingface_hub into an error of one line, without the token or signatures in URLs."""
    try:
        yield
    except PacklmError:
        raise
    except Exception as error:  # of httpx, of the library itself, or of its uploader in Rust
        # The server's message says more than the library's; the exception of an uploading thread names the file, its cause the reason.
        message = getattr(error, "server_message", None) or _first_line(error)
        if not hasattr(error, "response") and error.__cause__:
            message += f" {_first_line(error.__cause__)}"
        reason = without_credentials(" ".join(message.split()))
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise RequestError(f"{name}: the hub does not accept this login ({reason}); run `hf auth login`, or renew HF_TOKEN") from None
        if status in (403, 404):
            raise RequestError(
                f"{name}: this login may not write there ({reason}); check the owner, and that the token has write access"
            ) from None
        if status is not None and 400 <= status < 500:
            raise RequestError(f"{name}: the hub refused the request: {reason}") from None
        raise PacklmError(f"{name}: the hub cannot be reached, or failed: {reason}; resume by running the same command again") from None


def _first_line(error: BaseException) -> str:
    """The first non-empty line of an exception's message; its class if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
