"""`packlm new`: what is found in a folder, the recipe that follows from it, and what is refused."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from packlm import config
from packlm.config import Config
from packlm.corpus.discovery import list_files
from packlm.text.tokenizers.bpe import default_vocab_size
from pipeline.new import command, corpus_files, findings, language, overlap, recipe, sizes, structure
from preprocess.build.stage import build

NOUNS = ["cat", "river", "garden", "teacher", "window", "letter", "bridge", "winter", "baker", "lamp"]
VERBS = ["crosses", "paints", "remembers", "follows", "opens", "sells", "mends", "forgets"]


def sentence(generator: np.random.Generator) -> str:
    nouns = generator.choice(NOUNS, 3)
    year = generator.integers(1000, 3000)
    return f"The {nouns[0]} {generator.choice(VERBS)} the {nouns[1]} and the {nouns[2]} that was in the old house in {year}."


def article(seed: int, sentences: int = 12) -> str:
    """A made-up text of several lines and paragraphs."""
    generator = np.random.default_rng(seed)
    lines = [sentence(generator).replace(" and ", "\nand ") for _ in range(sentences)]
    return "\n\n".join(" ".join(lines[start : start + 4]) for start in range(0, sentences, 4)) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str | bytes]], str]:
    """Makes the folder `texts`, in the current folder, with these files."""
    monkeypatch.chdir(tmp_path)

    def make(contents: dict[str, str | bytes]) -> str:
        for name, content in contents.items():
            path = tmp_path / "texts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return "texts"

    return make


def articles(count: int = 40) -> dict[str, str | bytes]:
    return {f"{number:02}.txt": article(number) for number in range(count)}


def loaded(name: str = "texts") -> tuple[Config, str]:
    """The recipe that `command.run` wrote for a folder: as settings, and as text."""
    out = Path("made.toml")
    said = command.run(name, out)
    assert said.splitlines()[-1].split() == ["packlm", "run", "--config", "made.toml"]
    return config.load(out), out.read_text(encoding="utf-8")


def test_a_folder_of_articles(folder: Callable[..., str]) -> None:
    folder(articles())
    settings, text = loaded()
    assert settings.run.name == "texts" and settings.corpus.train == ("texts",)
    assert (settings.corpus.document, settings.corpus.sentences) == ("file", "sentencex")
    assert (settings.train.segments, settings.train.reset) == ("streams", "document")
    assert settings.tokenizer.kind == "bpe" and settings.evaluate.split == "test"
    manifest = build(settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"workers": 1, "shards": 1})})).manifest
    assert {split: manifest.splits[split].documents > 0 for split in ("train", "validation", "test")}
    shares = [manifest.splits[split].bytes / sum(counts.bytes for counts in manifest.splits.values()) for split in ("validation", "test")]
    assert all(0.05 < share < 0.25 for share in shares), shares
    held_out = {name: body for name, body in articles().items() if settings.corpus.split_of(f"texts/{name}") == "validation"}
    assert isinstance(settings.generate.prompts, tuple) and len(settings.generate.prompts) >= 1
    joined = " ".join(" ".join(str(body) for body in held_out.values()).split())
    assert all(prompt in joined for prompt in settings.generate.prompts)
    assert "# about " in text and "40 .txt" in text


def test_odd_files_are_left_out_or_named(folder: Callable[..., str]) -> None:
    folder(
        articles()
        | {"README.md": "About these texts, in some words.", "cover.png": b"\x89PNG\r\n\x1a\n" + bytes(200), "Makefile": "all: x\n" * 9}
    )
    settings, text = loaded()
    assert settings.corpus.train == ("texts/**/*.txt",)
    assert "README.md: a note about the corpus, by its name; left out" in text and "cover.png: looks like a binary file" in text
    folder({"LICENSE.txt": "You may read this.\n" * 3, "99.txt": "\n"})
    settings, text = loaded()
    names = [Path(location).name for location in settings.corpus.train]
    assert len(names) == 40 and "LICENSE.txt" not in names and "99.txt: nearly empty; left out" in text
    folder(articles(130))
    settings, text = loaded()
    assert settings.corpus.train == ("texts",) and "LICENSE.txt: a note about the corpus, by its name; is read too; move it" in text


def test_files_that_are_called_after_their_splits(folder: Callable[..., str]) -> None:
    texts = {
        f"my.{name}.txt": "\n\n".join(article(seed + number) for number in range(20))
        for seed, name in ((0, "train"), (50, "valid"), (90, "test"))
    }
    folder(texts)
    settings, _ = loaded()
    assert settings.corpus.train == ("texts/my.train.txt",) and settings.corpus.validation == ("texts/my.valid.txt",)
    assert settings.corpus.test == ("texts/my.test.txt",) and settings.corpus.validation_fraction == settings.corpus.test_fraction == 0
    assert all(prompt in texts["my.valid.txt"].replace("\n", " ") for prompt in settings.generate.prompts)
    Path("texts/my.valid.txt").unlink()
    settings, _ = loaded()
    assert settings.corpus.validation == () and settings.corpus.validation_fraction > 0 and settings.corpus.test_fraction == 0


def test_lines_of_every_document_and_duplicates(folder: Callable[..., str]) -> None:
    framed = {name: f"The Daily (c) 1999\n\n{body}" for name, body in articles().items()}
    folder(framed | {"again.txt": framed["03.txt"]})
    settings, text = loaded()
    assert settings.corpus.drop_lines == (r"The Daily \(c\) 1999",) and settings.corpus.duplicates == "skip"
    assert "duplicates: 1 documents have" in text


def test_encodings_and_control_characters(folder: Callable[..., str]) -> None:
    french = "Les élèves ont été très étonnés: la fête où elle est allée était à côté de l'église. " * 4
    folder(
        {f"{number}.txt": (french + article(number)).encode("cp1252" if number < 3 else "utf-8") for number in range(20)}
        | {"z.txt": article(99) + "\x07"}
    )
    settings, text = loaded()
    assert settings.corpus.encoding == "auto" and settings.corpus.on_control == "remove" and "3 cp1252" in text
    build(settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"workers": 1})}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n\n".join(f"CHAPTER {number}\n\n{article(number)}" for number in range(1, 25)), ("pattern", "sentencex", "streams")),
        ("\n".join(f" \n = Article {number} = \n \n{article(number)}" for number in range(24)), ("pattern", "sentencex", "streams")),
        ("\n".join(f"{article(number, 4)}%" for number in range(60)), ("pattern", "sentencex", "streams")),
        ("\n\n".join(article(number, 3).replace("\n", " ") for number in range(60)), ("paragraph", "sentencex", "streams")),
        ("\n".join(sentence(np.random.default_rng(number)) for number in range(300)), ("line", "none", "sentences")),
    ],
    ids=["chapters", "wiki", "separators", "paragraphs", "lines"],
)  # fmt: skip
def test_a_single_file_is_cut_into_documents(folder: Callable[..., str], content: str, expected: tuple[str, str, str]) -> None:
    folder({"book.txt": content})
    settings, _ = loaded("texts/book.txt")
    assert settings.run.name == "book" and settings.corpus.validation_fraction > 0
    assert (settings.corpus.document, settings.corpus.sentences, settings.train.segments) == expected
    assert (settings.corpus.document_pattern == r"\n= [^=].* =\n") == ("Article" in content)
    assert ("%+" in settings.corpus.drop_lines) == ("%" in content)


def test_tokenized_lines_stay_words(folder: Callable[..., str]) -> None:
    lines = [sentence(np.random.default_rng(number)).lower().replace(".", " <unk>") for number in range(300)]
    folder({"ptb.txt": "\n".join(lines) + "\n"})
    settings, _ = loaded()
    assert settings.tokenizer.kind == "word"


def test_records(folder: Callable[..., str]) -> None:
    import json

    records = [{"id": f"{number}", "meta": {"body": article(number)}} for number in range(30)]
    folder({"a.jsonl": "\n".join(map(json.dumps, records)) + "\n"})
    assert loaded()[0].corpus.text_field == "meta.body"
    Path("texts/a.jsonl").unlink()
    folder({"a.csv": "id,story\n" + "".join(f'{number},"{article(number)}"\n' for number in range(30))})
    settings, text = loaded()
    assert settings.corpus.text_field == "story" and "documents: 30 (records" in text


def test_languages_that_can_be_told(folder: Callable[..., str]) -> None:
    texts = {
        "en": "It was late, and the man who lived in the house by the river had not seen that it was going to rain.",
        "de": "Der Hund, der in dem Haus an dem Fluss wohnt, ist nicht mit der Katze und den Kindern in die Stadt gegangen.",
        "fr": "Le chien et la fille sont dans une maison que les voisins des parents ne voient pas, et il est tard.",
        "ru": "Он не знал, что на улице дождь и что она уже в доме, как это было с ним вчера. Я не был в городе.",
        "ja": "これはペンです。彼は学校に行きました。", "zh": "他昨天去了学校,看见了很多人。", "el": "Η γάτα κοιμάται στο σπίτι.",
    }  # fmt: skip
    assert {code: language.language(text * 5) for code, text in texts.items()} == {code: code for code in texts}
    assert language.language((texts["en"] + " " + texts["de"]) * 5) == ""
    assert language.language("xq zw kj vv " * 50) == "" and language.language("") == ""
    folder(
        {
            name: str(body).replace("the", "zor").replace("The", "Zor").replace("and", "bem").replace("that was in", "vu")
            for name, body in articles().items()
        }
    )
    settings, text = loaded()
    assert settings.corpus.language == "en" and "# language =" in text and "language: not recognized" in text


def test_overlap_of_held_out_documents() -> None:
    texts = [article(seed) for seed in range(10)]
    assert overlap.measure(texts, [False] * 10).held_out_runs == 0
    distinct = overlap.measure(texts, [True, *[False] * 9]).held_out_runs
    copied = overlap.measure([texts[1], *texts[1:]], [True, *[False] * 9])
    assert distinct < 0.5 and copied.held_out_runs == 1 and copied.duplicates == 1
    runs = {tuple(text.split()[start : start + 8]) for text in texts[1:] for start in range(len(text.split()) - 7)}
    words = texts[0].split()
    expected = np.mean([tuple(words[start : start + 8]) in runs for start in range(len(words) - 7)])
    assert distinct == pytest.approx(expected)


def test_settings_change_smoothly_with_the_size() -> None:
    found = [
        sizes.by_size(train_bytes, default_vocab_size(train_bytes)) for train_bytes in np.geomspace(1e4, 1e10, 60).astype(int).tolist()
    ]
    for attribute, sign in (("hidden", 1), ("vocab_size", 1), ("layers", 1), ("dropout", -1), ("epochs", -1), ("train_tokens", 1)):
        values = [getattr(size, attribute) * sign for size in found]
        assert values == sorted(values), attribute
    for size in found:
        config.resolve({"model": {"hidden": size.hidden, "layers": size.layers, "dropout": size.dropout}, "train": {"epochs": size.epochs}})


def test_a_folder_without_documents_to_hold_out(folder: Callable[..., str]) -> None:
    folder({"one.txt": "A single line of words with nothing after it, and that is all there is here"})
    settings, text = loaded()
    assert (
        settings.corpus.validation_fraction == 0
        and "held out: nothing" in text
        and "size: too little text" in text
        and settings.evaluate.split == "train"
    )


def test_nothing_of_a_large_corpus_is_read_twice_over(folder: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SAMPLE_BYTES", 20_000)
    folder(articles(200))
    found = findings.inspect("texts")
    whole = sum(path.stat().st_size for path in Path("texts").iterdir())
    assert found.file_bytes == whole and found.text_bytes < 25_000
    assert found.train_bytes == pytest.approx(whole * (1 - 2 * found.corpus.test_fraction), rel=0.05)
    assert "of it)" in recipe.recipe("texts", found)


def test_a_file_longer_than_a_document_may_be_is_cut(folder: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SAMPLE_BYTES", 20_000)
    monkeypatch.setattr(findings, "Corpus", partial(config.Corpus, max_document_bytes=50_000))
    folder({"[long] book.txt": "\n\n".join(article(number) for number in range(200))})
    settings, _ = loaded("texts/[long] book.txt")
    assert settings.corpus.document == "paragraph" and settings.run.name == "long-book"
    assert settings.corpus.train == ("texts/[long] book.txt",)
    assert list_files(settings.corpus.train[0])[0][0] == "[long] book.txt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["txets"], "txets: no such file or folder; did you mean texts?"),
        (["empty"], "empty: the folder is empty"),
        (["pictures"], "pictures: no file of text in it (pictures/a.png: looks like a binary file)"),
        (["blank"], "blank: no file of text in it (blank/a.txt: nearly empty)"),
        (["texts", "--out", "texts.toml"], "texts.toml: there is a recipe already; replace it with --rebuild, or give another file"),
        (["texts", "--out", "no/such.toml"], "--out no/such.toml: there is no folder no; make it first"),
        (["texts", "--ouy", "x"], "unknown option '--ouy'; did you mean --out?"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(
    folder: Callable[..., str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder(articles(3) | {"../pictures/a.png": b"\x89PNG\r\n\x1a\n" + bytes(200), "../blank/a.txt": " \n"})
    Path("empty").mkdir()
    Path("texts.toml").write_text("", encoding="utf-8")
    from packlm.commands import command as commands
    from pipeline.cli import cli

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as status:
        patch.setattr(sys, "argv", ["packlm", "new", *arguments])
        commands.run(cli, "packlm")
    error = capsys.readouterr().err
    assert status.value.code == 2 and message in error and error.count("\n") == 1
    assert Path("texts.toml").read_text(encoding="utf-8") == ""


def test_the_command_line_needs_no_torch(folder: Callable[..., str]) -> None:
    folder(articles(12))
    program = (
        "import sys; sys.argv = ['packlm', 'new', 'texts']; from packlm.commands import verbs\n"
        "try: verbs.main()\nfinally: print([name for name in ('torch', 'mlflow') if name in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.endswith("[]\n") and "packlm run --config texts.toml" in ran.stdout
    assert corpus_files.look("texts").locations == {"train": ["texts"]} and structure.structure([], 12).document == "file"
