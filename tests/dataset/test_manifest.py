"""The manifest is read back as it was written, and a damaged one is one line that names file and key."""

import json
import shutil
from dataclasses import replace

import pytest

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError


def mutations(values, path=()):
    """(path of a key, the whole with that key removed or of another type), for every key at every depth."""
    for key in values:
        for change in ("removed", None, "text", 1.5, [], {"unknown": 1}):
            other = json.loads(json.dumps(values))
            if change == "removed":
                del other[key]
            else:
                other[key] = change
            yield (*path, key), other
        if isinstance(values[key], dict):
            for inner, other in mutations(values[key], (*path, key)):
                yield inner, {**values, key: other}


def edits(values, path=()):
    """(path of a value, the whole with another value of its type there), for every number, text and truth value but the version."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            for inner, other in edits(value, (*path, key)):
                yield inner, {**values, key: other}
        elif isinstance(value, bool | int | float | str) and key != "version":
            yield (*path, key), {**values, key: not value if isinstance(value, bool) else value + type(value)(1)}


@pytest.fixture
def folder(random_data, tmp_path):
    shutil.copy(random_data.folder / "manifest.json", tmp_path)
    return tmp_path


def test_what_is_written_is_read(random_data, folder):
    manifest = dataset.read_manifest(folder)
    assert manifest == random_data.manifest
    text = (folder / "manifest.json").read_text()
    dataset.write_manifest(folder, manifest)
    assert (folder / "manifest.json").read_text() == text


def test_wrong_types_and_missing_keys_anywhere_are_one_line(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    count = 0
    for key, other in mutations(values):
        path.write_text(json.dumps(other))
        try:
            dataset.read_manifest(folder)
        except PacklmError as error:
            assert str(path) in str(error) and "\n" not in str(error), key
            count += 1
    assert count > 200


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda values: values.update(vocab_size="many"), r"manifest\.json: vocab_size: "),
        (lambda values: values["splits"]["train"].pop("tokens"), r"manifest\.json: splits\.train\.tokens: "),
        (lambda values: values["splits"]["train"].update(colour=1), r"manifest\.json: splits\.train\.colour: "),
        (lambda values: values["splits"]["train"].update(words=1), r"manifest\.json: edited or damaged: the digest of its content is"),
        (lambda values: values.pop("digest"), r"manifest\.json: edited or damaged: it has no digest"),
    ],
)
def test_the_key_is_named(folder, change, error):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(PacklmError, match=error):
        dataset.read_manifest(folder)


def test_every_value_is_held_against_the_digest(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    count = 0
    for _, other in edits(values):
        path.write_text(json.dumps(other))
        with pytest.raises(PacklmError, match=r"manifest\.json: edited or damaged"):
            dataset.read_manifest(folder)
        count += 1
    assert count > 40


def test_both_views_are_there(random_data, folder):
    split = random_data.manifest.splits["train"]
    splits = {"train": replace(split, files={"sentences": split.files["sentences"]})}
    dataset.write_manifest(folder, replace(random_data.manifest, splits=splits))
    with pytest.raises(PacklmError, match=r"splits\.train\.files: expected the views fixed, sentences, got sentences"):
        dataset.read_manifest(folder)


def test_other_versions_and_folders_without_a_dataset(folder, tmp_path):
    with pytest.raises(RequestError, match="no dataset here"):
        dataset.read_manifest(tmp_path / "none")
    for content in ('{"version": 1}', "[]", '"text"'):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(RequestError, match=r"manifest\.json: dataset version"):
            dataset.read_manifest(folder)
