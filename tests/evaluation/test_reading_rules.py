"""A model reads text as its training text was read: every setting that matters for this is in the model folder.

The tables have an entry for every setting, so a new one fails these tests until it has one, too.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Corpus, Tokenizer
from packlm.corpus import documents
from packlm.model.info import DATASET_ONLY, ModelInfo
from packlm.text import tokenizer, tokenizers
from packlm.text.document_encoding import encode_documents
from packlm.text.encoder import Encoder

CORPUS: dict[str, dict[str, Any]] = {
    "format": {"format": "jsonl"},
    "train": {"train": "train.txt"},
    "validation": {"validation": "validation.txt"},
    "test": {"test": "test.txt"},
    "validation_fraction": {"validation_fraction": 0.3},
    "test_fraction": {"test_fraction": 0.3},
    "split_seed": {"split_seed": 2},
    "text_field": {"text_field": "body"},
    "delimiter": {"delimiter": ";"},
    "quoting": {"quoting": "none"},
    "encoding": {"encoding": "cp1252"},
    "document": {"document": "line"},
    "document_pattern": {"document": "pattern", "document_pattern": "= .* ="},
    "sentences": {"sentences": "line"},
    "language": {"language": "de"},
    "max_tokens": {"max_tokens": 8},
    "on_overlong": {"max_tokens": 8, "on_overlong": "error"},
    "drop_lines": {"drop_lines": ["drop.*"]},
    "on_bad_text": {"on_bad_text": "replace"},
    "on_control": {"on_control": "remove"},
    "line_ends": {"line_ends": "lf", "sentences": "none"},
    "on_empty": {"document": "line", "on_empty": "error"},
    "duplicates": {"duplicates": "skip"},
    "max_document_bytes": {"max_document_bytes": 20},
}
"""Another value of each setting, with what it needs beside it."""
FILES = {
    "plain.txt": b"= One =\nThe cat sees the dog bzw. The tree. A dog.\n\ndrop this\n= Two =\nThe cat.\r\nThe cat.\r\n",
    "lines.txt": b"The cat.\n\nThe cat.\n",
    "latin.txt": b"na\xefve cat",
    "control.txt": b"The\x00 cat",
    "rows.csv": b'n,text\n1,"The cat, a dog."\n',
    "records.jsonl": b'{"text": "The cat.", "body": "A dog."}\n',
}


SENTENCES = ["The cat sees the dog.", "THE cat <end> sees naïve dogs.", "the dog"]
INFO: dict[str, Any] = {
    "name": "tiny", "model": {}, "vocab_size": 9, "segments": "sentences", "reset": "document", "lossless": True, "dataset": {},
    "weights": "", "tokenizer": "", "numbers": {"steps": 0, "tokens": 0}, "format": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tokenizers.train(Tokenizer(kind="bpe", vocab_size=270), SENTENCES), "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text")
    for name, content in FILES.items():
        (path / name).write_bytes(content)
    return path


def read(folder: Path, rules: Corpus, encoder: Encoder) -> list[tuple[list[int], list[int], list[int]] | str]:
    """Ids, sentence ends and document starts of each file, or the error."""
    results: list[tuple[list[int], list[int], list[int]] | str] = []
    for name in FILES:
        ids, ends, starts = [], [], []
        try:
            for block in documents.read_locations([str(folder / name)], rules, encoder.spelled_eos, Counter()):
                encoded = encode_documents(block, rules, encoder)
                ids += encoded.ids.tolist()
                ends += encoded.ends.tolist()
                starts += encoded.document_starts.tolist()
            results.append((ids, ends, starts))
        except PacklmError as error:
            results.append(str(error))
    return results


def test_every_setting_is_in_a_table() -> None:
    assert set(CORPUS) == set(Corpus.model_fields) and set(CORPUS) > DATASET_ONLY
    assert set(TOKENIZER) == set(Tokenizer.model_fields) - {"sample_bytes"}  # it only chooses what is trained on


@pytest.mark.parametrize("setting", CORPUS)
def test_rules_travel_with_the_model_and_only_those_change_how_text_is_read(setting: str, folder: Path, encoder: Encoder) -> None:
    companions = {key: value for key, value in CORPUS[setting].items() if key != setting}
    if setting == "document_pattern":
        companions["document_pattern"] = "The .*"
    changed, other = Corpus.model_validate(CORPUS[setting]), Corpus.model_validate(companions)
    rules = ModelInfo.model_validate(INFO | {"text": changed.model_dump(mode="json")}).text
    travels = setting not in DATASET_ONLY
    assert (getattr(rules, setting) == getattr(changed, setting)) == travels
    if setting != "format":  # of the training files; text to evaluate may have another
        assert (read(folder, changed, encoder) != read(folder, other, encoder)) == travels
        assert read(folder, rules, encoder) == read(folder, changed, encoder)


TOKENIZER: dict[str, dict[str, Any]] = {
    "kind": {"kind": "character"},
    "vocab_size": {"kind": "word", "vocab_size": 4},
    "min_count": {"kind": "word", "min_count": 1},
    "words": {"kind": "word", "words": "punctuation"},
    "lowercase": {"kind": "word", "lowercase": True},
    "normal_form": {"kind": "character", "normal_form": "nfd"},
    "file": {"kind": "file", "file": "pretrained.json"},
    "eos": {"kind": "file", "file": "renamed.json", "eos": "<end>"},
}


@pytest.mark.parametrize("setting", TOKENIZER)
def test_tokenizer_settings_are_in_the_tokenizers_file(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They change how text is encoded, and a tokenizer loaded from a folder, without any setting, encodes like the one saved there."""
    monkeypatch.chdir(tmp_path)
    words = tokenizers.train(Tokenizer(kind="word"), SENTENCES[2:]).to_str()
    Path("pretrained.json").write_text(words)
    Path("renamed.json").write_text(words.replace("<eos>", "<end>"))

    def saved(name: str, settings: dict[str, Any]) -> list[int]:
        tokenizer_settings = Tokenizer.model_validate(settings)
        kind = tokenizers.KINDS[tokenizer_settings.kind]
        text = kind.pretrained(tokenizer_settings) or tokenizers.train(tokenizer_settings, SENTENCES).to_str()
        Path(name).mkdir()
        tokenizer.save(text, Path(name))
        before, after = Encoder(tokenizer.parse(text, name), ""), Encoder.load(Path(name))
        ids = after.encode_sentences(SENTENCES)[0].tolist()
        assert ids == before.encode_sentences(SENTENCES)[0].tolist()
        return ids

    ids = saved("changed", TOKENIZER[setting])
    if setting == "eos":
        with pytest.raises(RequestError, match="<eos>"):
            saved("default", TOKENIZER["eos"] | {"eos": "<eos>"})
    else:
        others = {key: value for key, value in TOKENIZER[setting].items() if key != setting and setting not in ("kind", "file")}
        assert ids != saved("default", others)
