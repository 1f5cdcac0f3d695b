"""Formats of n-best lists: read with their units, every problem named, and written so that they can be read back."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from packlm.base.errors import RequestError
from serve.rescore import command, formats
from serve.rescore.formats import espnet, jsonl, kaldi
from serve.rescore.keyed_files import read_texts, with_recordings
from serve.rescore.nbest import Hypothesis, NbestFormat, NbestInput, NbestLists, RankedList, Utterance
from serve.rescore.rescore import RescoredList


def write(folder: Path, **contents: str) -> None:
    """Writes files to a folder; `__` in a name is a slash."""
    for name, text in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def shown(lists: NbestLists) -> dict[str, list[tuple[str, int, float, float | None]]]:
    return {utterance.id: [(one.text, one.rank, one.score, one.lm_score) for one in utterance.hypotheses] for utterance in lists.utterances}


def test_a_score_in_json_has_the_configured_sign_and_base(tmp_path: Path) -> None:
    hypotheses = [{"text": "a", "score": 2.0, "lm_score": 1, "tag": "t"}]
    record = {"id": "u", "hypotheses": hypotheses, "reference": "a", "recording": "r", "more": 1}
    path = tmp_path / "n.jsonl"
    path.write_text(json.dumps(record), encoding="utf-8")
    assert shown(jsonl.read(path, "log-prob", math.e)) == {"u": [("a", 1, 2.0, 1.0)]}
    lists = jsonl.read(path, "cost", 10.0)
    assert shown(lists)["u"][0][2:] == (pytest.approx(-2 * math.log(10)), pytest.approx(-math.log(10)))
    (one,) = lists.utterances
    assert (one.reference, one.recording, one.extra["more"], one.hypotheses[0].extra["tag"]) == ("a", "r", 1, "t")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "not JSON"),
        ('{"id": 3, "hypotheses": []}', "id: Input should be a valid string"),
        ('{"id": "u", "hypotheses": []}', "u: hypotheses: List should have at least 1 item"),
        ('{"id": "u", "hypotheses": ["a"]}', "u: hypotheses.0: Input should be a valid dictionary"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": 1}, {"text": "b"}]}', "u: hypotheses.1.score: Field required"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": true}]}', "hypotheses.0.score: Input should be a valid number"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": 1e999}]}', "1e999 is not a finite number"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": 1' + "0" * 400 + "}]}", "has more than 64 bits"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": 1, "lm_score": "x"}]}', "0.lm_score: Input should be a valid number"),
        ('{"id": "u", "hypotheses": [{"text": "a", "score": 1}], "reference": 3}', "reference: Input should be a valid string"),
        ('{"id": "good", "hypotheses": [{"text": "a", "score": 1}]}', "duplicate id 'good', first on line 1"),
    ],
)
def test_a_line_that_is_not_a_list_becomes_a_record_with_an_error(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "n.jsonl"
    good = '{"id": "good", "hypotheses": [{"text": "a", "score": 1}]}'
    path.write_text(f"{good}\n{line}\n{good.replace('good', 'last')}\n", encoding="utf-8")
    lists = jsonl.read(path, "log-prob", math.e)
    assert [one.id for one in lists.utterances] == ["good", "last"] and [problem.number for problem in lists.problems] == [2]
    rescored = [RescoredList(one, np.zeros(1), np.zeros(1, int)) for one in lists.utterances]
    command.write(lists, jsonl.FORMAT, rescored, np.zeros(3), str(tmp_path / "out.jsonl"))
    first, error, last = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert first["id"] == "good" and last["id"] == "last" and list(error) == ["error"]
    assert why in error["error"] and "n.jsonl line 2" in error["error"]


def test_a_format_is_one_object_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists as a text a line, best first, which the other formats do not know."""

    def read(source: NbestInput) -> NbestLists:
        texts = source.path.read_text(encoding="utf-8").splitlines()
        return NbestLists([Utterance("u", [Hypothesis(text, rank, 0.0) for rank, text in enumerate(texts, 1)], 1)], [])

    def write_best(folder: Path, lists: Sequence[RankedList]) -> None:
        write(folder, best="".join(one.utterance.hypotheses[one.order[0]].text for one in lists))

    plain = NbestFormat("plain", "a .nbest file", ("log-prob", "e"), lambda source: source.path.suffix == ".nbest", read, write_best)
    source = NbestInput(tmp_path / "a.nbest", None, None, "log-prob", "e")
    with pytest.raises(RequestError, match=r"an ESPnet folder, Kaldi words with --ac-cost FILE, a \.jsonl file; it is none of these"):
        formats.find(source)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, plain))
    source.path.write_text("the cat\na cat\n", encoding="utf-8")
    lists = formats.find(source).read(source)
    rescored = RescoredList(lists.utterances[0], np.array([-2.0, -1.0]), np.zeros(2, int))
    command.write(lists, plain, [rescored], np.ones(3), str(tmp_path / "o"))
    assert (tmp_path / "o" / "best").read_text() == "a cat" and (tmp_path / "o" / "scores.jsonl").exists()


KALDI = {
    "words": "u-1-1 the cat\nu-1-2 a  cat\nu-1-10\nv-1 the dog\n",
    "ac": "u-1-1 10.5\nu-1-2 9\nu-1-10  12\nv-1 1e1\n",
    "lm": "u-1-1 3\nu-1-2 4\nu-1-10 5\nv-1 6\n",
}


def ranked(utterances: list[Utterance]) -> list[RankedList]:
    """Lists in reverse order, with log P -1, -2, ... and totals -10, -20, ..."""
    ranks = [np.arange(1.0, len(one.hypotheses) + 1) for one in utterances]
    return [RankedList(one, -rank, [*range(len(rank))][::-1], -10 * rank) for one, rank in zip(utterances, ranks, strict=True)]


def test_kaldi_lists_are_costs_by_utterance_and_rank(tmp_path: Path) -> None:
    write(tmp_path, **KALDI)
    lists = kaldi.read(tmp_path / "words", tmp_path / "ac", tmp_path / "lm")
    assert not lists.problems and shown(lists) == {
        "u-1": [("the cat", 1, -10.5, -3.0), ("a  cat", 2, -9.0, -4.0), ("", 10, -12.0, -5.0)],
        "v": [("the dog", 1, -10.0, -6.0)],
    }
    kaldi.write(tmp_path / "out", ranked(lists.utterances))
    again = kaldi.read(tmp_path / "out" / "words", tmp_path / "out" / "ac_cost", tmp_path / "out" / "lm_cost")
    assert shown(again)["u-1"] == [("", 1, -12.0, -5.0), ("a  cat", 2, -9.0, -4.0), ("the cat", 3, -10.5, -3.0)]
    assert (tmp_path / "out" / "text").read_text() == "u-1\nv the dog\n"
    assert (tmp_path / "out" / "new_lm_cost").read_text() == "u-1-1 1\nu-1-2 2\nu-1-10 3\nv-1 1\n"
    assert (tmp_path / "out" / "total_cost").read_text() == "u-1-1 30\nu-1-2 20\nu-1-3 10\nv-1 10\n"


def test_problems_in_kaldi_lists_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, words="u-1 a\nu-1 b\nnorank a\nw-x a\n\nu-2 c\nu-3 d\n", ac="u-1 1\nu-2 one\nu-3 3\nz-1 4\nu-4 nan\n")
    lists = kaldi.read(tmp_path / "words", tmp_path / "ac", None)
    assert shown(lists) == {"u": [("a", 1, -1.0, None), ("d", 3, -3.0, None)]}
    messages = [f"{Path(problem.source).name}: {problem.reason}" for problem in lists.problems]
    assert sorted(messages) == sorted([
        "ac line 2: u-2: 'one' is not a number", "ac line 5: u-4: 'nan' is not a number",
        "words line 2: duplicate key 'u-1', first on line 1", "words line 5: an empty line",
        "words line 3: the key 'norank' does not end in a hyphen and a rank",
        "words line 4: the key 'w-x' does not end in a hyphen and a rank",
        f"words line 6: u-2 has no cost in {tmp_path / 'ac'}", "ac: z-1 has a cost, but no usable words",
    ])  # fmt: skip
    (tmp_path / "ac").write_bytes(b"u-1 \0BF\x04")
    with pytest.raises(RequestError, match=r"byte 5 is NUL.*ark,t:"):
        kaldi.read(tmp_path / "words", tmp_path / "ac", None)
    with pytest.raises(RequestError, match="cannot be read"):
        kaldi.read(tmp_path / "nowhere", tmp_path / "words", None)


def test_segments_order_the_utterances_of_a_recording(tmp_path: Path) -> None:
    write(tmp_path, segments="a r2 0 1\nb r1 5.5 6\nc r1 0.5 2\n", wrong="a r2 0\n")
    utterances = [Utterance(id, [], number) for number, id in enumerate("xabc", 1)]
    ordered = with_recordings(utterances, tmp_path / "segments")
    assert [(one.id, one.recording) for one in ordered] == [("c", "r1"), ("b", "r1"), ("a", "r2"), ("x", None)]
    with pytest.raises(RequestError, match="a: expected `utterance recording begin end`"):
        with_recordings(utterances, tmp_path / "wrong")


def test_espnet_lists_are_folders_of_ranks(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "output.1__1best_recog__text": "u the cat\nv \n", "output.1__1best_recog__score": "u tensor(-9.25)\nv -3.5\n",
            "output.1__1best_recog__token": "u the _ cat\nv <blank>\n",
            "output.1__2best_recog__text": "u a cat\n", "output.1__2best_recog__score": "u tensor(-10.5, device='cuda:0')\n",
            "output.1__2best_recog__token": "u a _ cat\n",
            "output.2__1best_recog__text": "w x\n", "output.2__1best_recog__score": "w tensor(-1., grad_fn=<X>)\n",
            "output.2__10best_recog__text": "w y\n", "output.2__10best_recog__score": "w -2\n",
        },
    )  # fmt: skip
    lists = espnet.read(tmp_path)
    assert not lists.problems and shown(lists) == {
        "u": [("the cat", 1, -9.25, None), ("a cat", 2, -10.5, None)], "v": [("", 1, -3.5, None)],
        "w": [("x", 1, -1.0, None), ("y", 10, -2.0, None)],
    }  # fmt: skip
    espnet.write(tmp_path / "out", ranked(lists.utterances))
    again = espnet.read(tmp_path / "out")
    assert shown(again)["u"] == [("a cat", 1, -20.0, None), ("the cat", 2, -10.0, None)]
    assert again.utterances[0].hypotheses[0].extra == {"token": "a _ cat"} and shown(again)["v"] == [("", 1, -10.0, None)]


def test_problems_in_espnet_lists_are_named(tmp_path: Path) -> None:
    write(tmp_path, **{"1best_recog__text": "u a\nv b\nw c\n", "1best_recog__score": "u -1\nv tensor(nan)\nx -3\n"})
    write(tmp_path, **{"output.1__1best_recog__text": "u a\n", "output.1__1best_recog__score": "u -1\n"})
    lists = espnet.read(tmp_path)
    assert shown(lists) == {"u": [("a", 1, -1.0, None)]}
    assert sorted(problem.reason for problem in lists.problems) == [
        "u has its hypothesis 1 in another folder", "v: 'tensor(nan)' is not a number", "w has a text, but no score",
        "x has a score, but no usable text",
    ]  # fmt: skip
    with pytest.raises(RequestError, match="no folder 1best_recog"):
        espnet.read(tmp_path / "1best_recog")


def test_a_file_of_references_has_one_for_each_utterance(tmp_path: Path) -> None:
    write(tmp_path, text="u the cat\nv\n", wrong="u a\nu b\n")
    assert read_texts(tmp_path / "text") == {"u": "the cat", "v": ""}
    with pytest.raises(RequestError, match="wrong line 2: duplicate key 'u', first on line 1"):
        read_texts(tmp_path / "wrong")
