"""Records of complete results."""

from pathlib import Path

from packlm.base import completion


def test_a_record_in_the_place_of_another_one_is_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(name)
        completion.write(tmp_path / f"{name}.json", {"seed": 1}, [tmp_path / f"{name}.txt"])
    assert completion.is_complete(tmp_path / "one.json", {"seed": 1})
    (tmp_path / "one.json").write_bytes((tmp_path / "two.json").read_bytes())
    assert not completion.is_complete(tmp_path / "one.json", {"seed": 1})
