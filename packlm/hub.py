"""Uploads folders to the Hugging Face hub; every failure is an error of one line."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from packlm.base.credentials import learn, without_credentials
from packlm.base.errors import PacklmError, RequestError

RepositoryType = Literal["dataset", "model"]


def login(name: str, repository_type: RepositoryType) -> str:
    """Checks the name of a repository, without the network, and returns the user's token.

    Raises:
        RequestError: an invalid name, or no login.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise RequestError(f"{name!r}: a {repository_type} on the hub is named OWNER/NAME; OWNER is a user or an organization")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(f"{name!r} is not a valid name on the hub: {_first_line(error)}") from None
    token = get_token()
    if token is None:
        raise RequestError(f"not logged in to {constants.ENDPOINT}: run `hf auth login`, or set HF_TOKEN to a token with write access")
    learn(token)  # it may come from a file
    return token


def upload(
    folder: Path, name: str, repository_type: RepositoryType, token: str, message: str, private: bool, revision: str | None = None,
    ignore: Sequence[str] = (), delete: Sequence[str] = (),
) -> str:  # fmt: skip
    """Uploads a folder to the repository `name` (`OWNER/NAME`), which is created if necessary; returns its URL.

    An interrupted upload resumes when run again: files that have arrived are not sent twice.

    Args:
        revision: a branch, which is created if necessary; by default the main one.
        ignore: patterns of files that are not uploaded (`*` matches `/` too).
        delete: patterns of files that are deleted there if the folder lacks them.

    Raises:
        RequestError: a login without write access, a public repository although `private`, or no such name of a branch.
        PacklmError: the hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    api = HfApi(token=token)
    with _errors_in_one_line(name):
        # None means the owner's default.
        url = str(api.create_repo(name, repo_type=repository_type, private=private or None, exist_ok=True))
        if private and not api.repo_info(name, repo_type=repository_type).private:
            raise RequestError(f"{url} exists and is public; make it private in its settings, or push to another name")
        if revision is not None:
            api.create_branch(name, repo_type=repository_type, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            repo_type=repository_type,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            ignore_patterns=list(ignore),
            delete_patterns=list(delete),
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
