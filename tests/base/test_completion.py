"""Records of complete results."""

from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.base import completion
from packlm.base.errors import PacklmError


def test_a_record_in_the_place_of_another_one_is_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
        completion.write(tmp_path / f"{name}.json", {"seed": 1}, [tmp_path / f"{name}.txt"])
    assert completion.is_complete(tmp_path / "one.json", {"seed": 1})
    (tmp_path / "one.json").write_bytes((tmp_path / "two.json").read_bytes())
    assert not completion.is_complete(tmp_path / "one.json", {"seed": 1})


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text('{"steps": 4}')], ids=["deleted", "edited"])
def test_an_output_that_its_record_does_not_describe_is_named(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path, record = tmp_path / "summary.json", tmp_path / "complete.json"
    path.write_text('{"steps": 3}')
    assert completion.read_output(record, path, dict[str, int]) == {"steps": 3}  # of a stage that has not ended
    completion.write(record, {}, [path])
    assert completion.read_output(record, path, dict[str, int]) == {"steps": 3}
    change(path)
    with pytest.raises(PacklmError, match=r"summary\.json: .*run its stage again"):
        completion.read_output(record, path, dict[str, int])
