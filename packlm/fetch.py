"""Copies of datasets and model folders from elsewhere: any address of a folder that fsspec reads, such as `s3://BUCKET/NAME`,
`gs://BUCKET/NAME` or `hf://datasets/OWNER/NAME`.

A copy is kept in the user's cache, under the digest of the file that describes the folder (`manifest.json`, `config.json`) and so of all
that it describes. It is complete, and every file in it was held against its digest. Credentials are those of the storage's own library.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

from packlm import dataset
from packlm.base import escape, files, verified_files
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, RequestError
from packlm.base.log import progress
from packlm.model import info as model_info

DESCRIPTIONS = ("manifest.json", "config.json")
"""The file that a dataset has, and that of a model folder."""


def fetch(address: str, cache: Path | None = None) -> Path:
    """The folder of a copy, which is made if there is none yet; a copy that was interrupted goes on where it stopped.

    Args:
        cache: where copies are kept; by default `fetched` in the user's cache.

    Raises:
        RequestError: no such storage, or neither a dataset nor a model there.
        PacklmError: the storage does not answer, or what it gave does not have the digests that it should.
    """
    system, root = _open(address)
    name, description = _description(address, system, root)
    folder = (cache or files.user_cache() / "fetched") / hashlib.sha256(description).hexdigest()[:32] / PurePosixPath(root).name
    if folder.exists():
        return folder
    work = files.temporary_of(folder)
    with files.lock(folder.parent / ".lock", what=folder):
        files.remove_temporaries(work)
        for path in progress(_names(address, system, root), desc=PurePosixPath(root).name, unit="file"):
            _copy(address, system, f"{root}/{path}", work / path)
        with files.atomic(work / name) as stream:
            stream.write(description)  # that which the folder is named by
        if damage := _damage(work, name):
            for file in damage:
                (work / file).unlink(missing_ok=True)
            lines = [f"{address}/{file}: {problem}" for file, problem in damage.items()]
            raise PacklmError(escape.lines(*lines, f"{address}: damaged there, or on its way; fetch it again, or repair the source"))
        with files.naming(folder):
            work.rename(folder)
    return folder


def _open(address: str) -> tuple[Any, str]:
    """The file system of an address, and the folder in it."""
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise RequestError(f"{address}: {error}") from None
    except ValueError as error:
        raise RequestError(f"{address}: {error}; an address begins as s3:// does, or gs://, hf://datasets/, ...") from None
    return system, str(root).rstrip("/")


def _description(address: str, system: Any, root: str) -> tuple[str, bytes]:
    """Name and content of the file that describes the folder."""
    for name in DESCRIPTIONS:
        try:
            return name, bytes(system.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            continue
        except Exception as error:  # of whatever library the storage has
            raise _failed(address, error) from None
    raise RequestError(f"{address}: neither a dataset nor a model folder: it has no {' and no '.join(DESCRIPTIONS)}")


def _names(address: str, system: Any, root: str) -> list[str]:
    """The files of the folder by their names in it, without hidden ones."""
    try:
        paths = [PurePosixPath(path).relative_to(root) for path in system.find(root)]
    except Exception as error:
        raise _failed(address, error) from None
    if outside := [path for path in paths if ".." in path.parts]:
        raise PacklmError(f"{address}: has a file named {escape.one_line(str(outside[0]))}, which would be outside the copy")
    return [str(path) for path in paths if not any(part.startswith(".") for part in path.parts)]


def _copy(address: str, system: Any, source: str, target: Path) -> None:
    """Copies a file, unless that has been done."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = files.temporary_of(target)
    try:
        system.get_file(source, str(part))
    except Exception as error:
        raise _failed(address, error) from None
    part.rename(target)


def _damage(folder: Path, description: str) -> dict[str, str]:
    """File -> problem, for each file of a copy that has not the digest it should have."""
    if description == "manifest.json":
        return dataset.damaged(folder, dataset.read_manifest(folder))
    info, damage = model_info.read(folder), {}
    for name, digest in (("model.safetensors", info.weights), ("tokenizer.json", info.tokenizer)):
        try:
            verified_files.open_checked(folder / name, digest).close()
        except verified_files.Damaged as error:
            damage[name] = str(error)
    return damage


def _failed(address: str, error: Exception) -> PacklmError:
    reason = without_credentials(" ".join(str(error).split()))[:300] or type(error).__name__
    return PacklmError(f"{address}: cannot be read: {reason}; see that the address and the credentials of its storage are right")
