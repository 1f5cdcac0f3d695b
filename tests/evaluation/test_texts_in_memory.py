"""A text in memory is read as a text file with it is, whatever the rules of the model and its context."""

from pathlib import Path
from typing import Any

import pytest
import torch

from packlm.base.errors import PacklmError
from packlm.config import Evaluate
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.evaluation import measure
from tests.small_models import trained_on

TEXT = "\ufeff= One =\r\nThe cat sees a dog. It eats!\r\n \r\n.START\nA tree\x07 over the river.\n\n\n= Two =\nthe cat\n  \nunder a tree"
RULES: dict[str, Any] = {
    "sentences": "sentencex", "drop_lines": (r"\.START",), "line_ends": "lf", "on_control": "remove", "document_pattern": "= .* =",
}  # fmt: skip
NUMBERS = ("documents", "sentences", "tokens", "words", "bytes", "nll", "bits_per_byte", "ids_digest")


def of_file(engine: Engine, path: Path) -> dict[str, Any]:
    """The report of `packlm evaluate --text`."""
    ranks = Ranks(0, 1, torch.device("cpu"))
    report, _ = measure.measure_text(engine.model, engine.info, engine.encoder, [str(path)], Evaluate(), ranks)
    return report


@pytest.mark.parametrize("document", ["file", "line", "paragraph", "pattern"])
@pytest.mark.parametrize(("segments", "reset"), [("sentences", "document"), ("streams", "document"), ("streams", "none")])
def test_a_text_has_the_numbers_of_a_file_with_it(engine: Engine, tmp_path: Path, document: str, segments: str, reset: str) -> None:
    model = trained_on(engine, segments, reset, document=document, **RULES)
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    report, memory = of_file(model, tmp_path / "a.txt"), model.evaluate([TEXT])
    assert {name: memory[name] for name in NUMBERS} == {name: report[name] for name in NUMBERS}
    assert model.perplexity(TEXT) == model.perplexity([TEXT]) == report["perplexity"]
    assert report["documents"] == {"file": 1, "line": 6, "paragraph": 4, "pattern": 2}[document]


def test_what_a_file_is_refused_for_a_text_is_refused_for(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"the\x07 cat")
    messages = []
    for run in (lambda: of_file(engine, tmp_path / "a.txt"), lambda: engine.perplexity("the\x07 cat")):
        with pytest.raises(PacklmError, match=r"control character U\+0007") as refusal:
            run()
        messages.append(str(refusal.value).partition(": ")[2])
    assert messages[0] == messages[1]
