"""A build of files in several encodings: what it counts and warns of, whoever makes it, and when."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.corpus.cleaning import C1, GARBLED
from packlm.corpus.transcoding import NotEncoded
from packlm.dataset import Manifest
from preprocess.build.builder import Builder
from preprocess.build.stage import build
from tests.small_corpus import tree

FRENCH = "Le café était fermé à l’heure où l’élève arriva. « Ça n’a pas d’importance », répondit-il, déçu.\n"


@pytest.fixture
def mixed(corpus: Path) -> Path:
    """The small corpus with files in other encodings beside it."""
    (corpus / "e.txt").unlink()
    (corpus / "sub" / "french.txt").write_bytes(FRENCH.encode("cp1252"))
    (corpus / "wide.txt").write_bytes(FRENCH.encode("utf-16"))
    return corpus


def test_all_bad_files_are_told_by_the_process_that_asked(mixed: Path, settings: Callable[..., Config]) -> None:
    for workers in (1, 2):
        config = settings(dataset__workers=workers)
        with pytest.raises(NotEncoded) as caught:
            build(config)
        assert [line.partition(": not")[0].strip() for line in str(caught.value).splitlines()[1:-1]] == [
            f"{mixed}/sub/french.txt", f"{mixed}/wide.txt",
        ]  # fmt: skip


@pytest.mark.usefixtures("mixed")
def test_auto_decides_the_same_after_an_interruption(
    settings: Callable[..., Config],
    made: Callable[..., tuple[Path, Manifest]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    folder, manifest = made(corpus__encoding="auto")
    assert {reason: count for reason, count in manifest.counts.items() if reason.startswith("files read")} == {
        "files read as UTF-8": 5, "files read as cp1252": 1, "files read as utf-16": 1,
    }  # fmt: skip
    assert "french.txt: read as cp1252" in caplog.text and "wide.txt: read as utf-16" in caplog.text
    whole = tree(folder)

    def stop(*_: object) -> None:
        raise PacklmError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Builder, "make_shards", stop)
        with pytest.raises(PacklmError, match="killed"):
            build(settings(corpus__encoding="auto"), rebuild=True)
    build(settings(corpus__encoding="auto", dataset__workers=2), rebuild=True)
    assert tree(folder) == whole


def test_signs_of_a_wrong_encoding_are_warned_of_with_a_document(
    corpus: Path, made: Callable[..., tuple[Path, Manifest]], caplog: pytest.LogCaptureFixture
) -> None:
    (corpus / "b.txt").write_bytes(FRENCH.encode("cp1252"))
    (corpus / "c.txt").write_bytes("Été à la forêt".encode())
    _, manifest = made(corpus__encoding="latin-1", corpus__on_bad_text="replace")
    assert manifest.counts[C1] > 4 and manifest.counts[GARBLED] >= 4
    first, second = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"][:2]
    assert f"{manifest.counts[C1]:,} {C1}, the first in articles/b.txt" in first and "--corpus.encoding auto" in first
    assert f"{manifest.counts[GARBLED]:,} {GARBLED}, the first in articles/c.txt" in second
