"""The check of every file of a dataset against its manifest."""

import hashlib
from pathlib import Path

from packlm.base import files
from packlm.dataset.manifest import VIEWS, Manifest, card


def damaged(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Checks every file against the manifest; returns file name -> what is wrong with it, for each that differs."""
    expected = {name: shard.sha256 for split in manifest.splits.values() for view in VIEWS for name, shard in split.files[view].items()}
    expected |= {**manifest.files, "README.md": hashlib.sha256(card(manifest).encode()).hexdigest()}
    found = {name: files.sha256(folder / name) if (folder / name).is_file() else "no such file" for name in expected}
    return {name: f"expected sha256 {digest}, got {found[name]}" for name, digest in expected.items() if found[name] != digest}
