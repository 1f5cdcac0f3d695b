"""Sharing: uploads a dataset to the Hugging Face hub, where `load_dataset("OWNER/NAME", "sentences")` opens it as it does here."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError

from . import report

HIDDEN = (".*", "*/.*")
"""Patterns of what stays here (`*` matches `/` too)."""
OURS = tuple(f"{name}/*" for name in (*dataset.VIEWS, report.NAME))
"""Patterns of what a push takes away where the new dataset has no such file: shards of an older one would be read along with it."""


def push(folder: Path, name: str, private: bool) -> str:
    """Uploads a dataset, its hidden files left out, to the repository `name` (`OWNER/NAME`), made if need be; returns its address.

    A push that was interrupted goes on when run again: what has arrived is not sent twice. A large one arrives as several
    commits, so until it has ended the repository holds some of both datasets.

    Raises:
        RequestError: a name the hub does not allow, no login, one that may not write there, or a public repository where a
            private one is asked for.
        PacklmError: the dataset is damaged (nothing is sent), or the hub does not answer.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, validate_repo_id

    if not re.fullmatch(r"[^/]+/[^/]+", name):
        raise RequestError(f"{name!r}: a dataset on the hub is named OWNER/NAME, the owner being your user name or an organization")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(f"{name!r} is no name for a dataset on the hub: {_line(error)}") from None
    token = get_token()
    if token is None:
        raise RequestError(f"not logged in to {constants.ENDPOINT}: run `hf auth login`, or set HF_TOKEN to a token that may write")
    manifest = dataset.read_manifest(folder)
    if damaged := dataset.damaged(folder, manifest):
        lines = [f"{folder / file}: {what}" for file, what in damaged.items()]
        raise PacklmError("\n".join([*lines, f"{folder}: damaged, so nothing was sent; `python -m preprocess verify` says what to do"]))

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    api = HfApi(token=token)
    with _explained(name, token):
        # None leaves it to the owner's own default.
        address = str(api.create_repo(name, repo_type="dataset", private=private or None, exist_ok=True))
        if private and not api.repo_info(name, repo_type="dataset").private:
            raise RequestError(f"{address} is there already, and public; make it private in its settings, or push to another name")
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            commit_message=f"packlm dataset, content {manifest.digests['content']}",
            ignore_patterns=list(HIDDEN),
            delete_patterns=list(OURS),
        )
    return address


@contextmanager
def _explained(name: str, token: str) -> Iterator[None]:
    """Turns whatever the hub's library raises into one line, without the token or signatures of addresses."""
    try:
        yield
    except PacklmError:
        raise
    except Exception as error:  # httpx's, the library's own, those of its uploader in Rust
        # The server's own words say more than the library's; and an uploading thread names the file, the error behind that the reason.
        said = getattr(error, "server_message", None) or _line(error)
        if not hasattr(error, "response") and error.__cause__:
            said += f" {_line(error.__cause__)}"
        reason = re.sub(r"\?\S*", "", " ".join(said.split()).replace(token, "***"))
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            raise RequestError(f"{name}: the hub does not accept this login ({reason}); run `hf auth login`, or renew HF_TOKEN") from None
        if status in (403, 404):
            raise RequestError(f"{name}: this login may not write there ({reason}); is the owner right, and may the token write?") from None
        if status is not None and 400 <= status < 500:
            raise RequestError(f"{name}: the hub refused it: {reason}") from None
        raise PacklmError(f"{name}: the hub cannot be reached, or failed: {reason}; run the same command again to go on") from None


def _line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
