"""JSON is read and written by the standard: no NaN, no Infinity, and every fault one kind of error."""

import pytest

from packlm.base import files, json_text
from packlm.base.errors import PacklmError


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        '{"a": -Infinity}',
        "1e400",
        "[-1e999]",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5_000,
        "",
        "{",
        b"\xff",
        b"\x00",
        str(2**64),
        str(-(2**63) - 1),
        '{"a": 1, "a": 1}',
        '"\\ud800"',
        '{"\\udfff": 1}',
        '[{"b": {"a": 1, "c": 2, "a": 3}}]',
    ],
)
def test_what_is_not_standard_json_is_refused(text):
    with pytest.raises(ValueError):
        json_text.loads(text)


def test_a_doubled_key_is_named():
    with pytest.raises(ValueError, match="the key 'a' stands twice"):
        json_text.loads('{"b": 1, "a": 1, "a": 1}')


def test_integers_of_64_bits_are_read():
    assert json_text.loads(f"[{2**64 - 1}, {-(2**63)}, 0, -0]") == [2**64 - 1, -(2**63), 0, 0]


def test_numbers_are_read_as_json_reads_them():
    assert json_text.loads('[1, -2, 0.1, 1e3, 1E-400, "NaN"]') == [1, -2, 0.1, 1000.0, 0.0, "NaN"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_never_written_and_its_key_is_named(number, tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(PacklmError, match=r"summary\.json: .*validation\.1\.loss is not finite"):
        files.write_json(path, {"steps": 3, "validation": [{"loss": 1.0}, {"loss": number}]})
    assert not path.exists()
