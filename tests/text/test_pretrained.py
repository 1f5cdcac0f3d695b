"""Pretrained tokenizers: renamed, checked, converted from SentencePiece, downloaded from a hub played by a local server."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from packlm import config
from packlm.base.errors import RequestError
from packlm.text import sentencepiece_model, tokenizer, tokenizers
from packlm.text.encoder import Encoder
from packlm.text.tokenizers import pretrained


def settings(path, **others):
    return config.Tokenizer(kind="file", file=path, **others)


def load(path, **others):
    return tokenizers.KINDS["file"].pretrained(settings(path, **others))


def encoder(text):
    return Encoder(tokenizer.parse(text, "given"), "")


@pytest.fixture
def byte_level(tmp_path):
    """A byte-level tokenizer with `</s>` in the middle of its vocabulary and a post-processor that adds it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*alphabet[:100], "</s>", "<pad>", *alphabet[100:], "Ġa"]
    model = Tokenizer(models.BPE({name: id for id, name in enumerate(names)}, [("Ġ", "a")]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["</s>", "<pad>", "<extra>"])
    model.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 100)])
    model.enable_truncation(3)
    model.enable_padding(pad_id=101, pad_token="<pad>", length=3)
    path = tmp_path / "tokenizer.json"
    model.save(str(path))
    return path


def changed(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return path


def test_the_end_of_a_sentence_gets_our_name(byte_level):
    text = load(byte_level, eos="</s>")
    ours, theirs = encoder(text), Tokenizer.from_file(str(byte_level))
    theirs.no_truncation()
    theirs.no_padding()
    assert (ours.eos, ours.unk, ours.vocab_size, ours.lossless) == (100, None, 260, True)
    assert '"</s>"' not in text and json.loads(text)["padding"] is json.loads(text)["truncation"] is None
    plain = "a word, a <eos> </s> and <pad>"
    theirs.encode_special_tokens = True
    assert ours.encode_open(plain).tolist() == theirs.encode(plain, add_special_tokens=False).ids
    assert ours.decode(ours.encode_open(plain)) == plain
    assert Tokenizer.from_str(text).encode(" a").ids == theirs.encode(" a").ids  # the post-processor still adds the same id
    assert pretrained.identity(text) == hashlib.sha256(text.encode()).hexdigest()
    assert tokenizers.KINDS["bpe"].pretrained(config.Tokenizer()) is pretrained.identity(None) is None


def test_identity_is_that_of_the_tokenizer_and_not_of_its_file(byte_level):
    before = pretrained.identity(load(byte_level, eos="</s>"))
    byte_level.write_text(json.dumps(json.loads(byte_level.read_text()), indent=7))
    assert pretrained.identity(load(byte_level, eos="</s>")) == before != pretrained.identity(load(byte_level, eos="<pad>"))


@pytest.mark.parametrize("listed", ["absent", "plain"])
def test_text_cannot_become_the_end_of_a_sentence(byte_level, listed):
    def change(values):
        values["added_tokens"] = [token for token in values["added_tokens"] if listed == "plain" or token["content"] != "</s>"]
        values["added_tokens"] = [token | {"special": token["content"] != "</s>", "normalized": True} for token in values["added_tokens"]]

    ours = encoder(load(changed(byte_level, change), eos="</s>"))
    assert ours.eos == 100 and ours.vocab_size == 260 and not ours.spelled_eos
    assert ours.decode(ours.encode_open("a <eos> b</s>")) == "a <eos> b</s>"


def test_unknown_tokens(byte_level, tmp_path):
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "[SEP]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["[UNK]", "[SEP]"])
    path = tmp_path / "words.json"
    words.save(str(path))
    ours = encoder(load(path, eos="[SEP]"))
    assert (ours.unk, ours.eos, ours.token(0), ours.encode_open("a b").tolist()) == (0, 2, "<unk>", [1, 0])
    with pytest.raises(RequestError, match=r"words\.json: \[UNK\] is its unknown token as well"):
        load(path, eos="[UNK]")
    # With all bytes there is nothing unknown.
    ours = encoder(load(changed(byte_level, lambda values: values["model"].update(unk_token="</s>")), eos="</s>"))
    assert ours.unk is None and ours.eos == 100


@pytest.mark.parametrize(
    ("change", "eos", "line"),
    [
        (lambda values: None, "<|end|>", r"no <\|end\|> in its vocabulary; .* --tokenizer\.eos. Special tokens: </s>, <pad>, <extra>$"),
        (lambda values: values["model"].update(dropout=0.1), "</s>", r"dropout = 0\.1 .* null"),
        (lambda values: values["model"]["vocab"].update({"Ġa": 300}), "</s>", r"its vocabulary has 41 gaps: no token has id 258"),
        (lambda values: values["model"]["vocab"].update({"Ġb": 258}), "</s>", r"two tokens have the id 258: '(Ġa' and 'Ġb|Ġb' and 'Ġa)'"),
        (lambda values: values["model"]["vocab"].update({"<eos>": 259}), "</s>", r"<eos> is in its vocabulary already"),
        (lambda values: values.pop("model"), "</s>", "not a tokenizer.json"),
    ],
)
def test_what_breaks_the_contract(byte_level, change, eos, line):
    with pytest.raises(RequestError, match=rf"tokenizer\.json: {line}") as caught:
        load(changed(byte_level, change), eos=eos)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_tokenizers(tmp_path):
    with pytest.raises(RequestError, match=r"t\.json: no such tokenizer; give a tokenizer\.json, a SentencePiece \.model"):
        load(tmp_path / "t.json")
    (tmp_path / "t.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"t\.json: not a tokenizer"):
        load(tmp_path / "t.json")


def test_transformers_reads_a_pretrained_one_alike(byte_level, tmp_path):
    import transformers

    tokenizer.save(load(byte_level, eos="</s>"), tmp_path / "made")
    ours, theirs = Encoder.load(tmp_path / "made"), transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "made")
    ids = ours.encode_open("a word , a ' s").tolist()
    assert theirs("a word , a ' s", add_special_tokens=False)["input_ids"] == ids and theirs.decode(ids) == "a word , a ' s"
    assert (theirs.eos_token_id, theirs.unk_token_id) == (100, None)


# SentencePiece


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains SentencePiece models on made-up text."""
    import sentencepiece as library

    maker = random.Random(1)
    words = ["".join(maker.choice("abcdefghilmnoprstuväß") for _ in range(maker.randrange(1, 9))) for _ in range(200)]
    text = [" ".join(maker.choice(words[: maker.choice([20, 200])]) for _ in range(12)) + maker.choice(".?!") for _ in range(300)]
    made = {}

    def train(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            data = io.BytesIO()
            library.SentencePieceTrainer.train(
                sentence_iterator=iter(text), model_writer=data, minloglevel=2, num_threads=1, **{"vocab_size": 220, **options}
            )
            path = tmp_path_factory.mktemp("sentencepiece") / "made.model"
            path.write_bytes(data.getvalue())
            made[key] = path, library.SentencePieceProcessor(model_proto=data.getvalue())
        return made[key]

    return train


PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS = [
    {"model_type": "unigram"},
    {"model_type": "unigram", "byte_fallback": True, "vocab_size": 470, **PLAIN},
    {"model_type": "unigram", "add_dummy_prefix": False, "vocab_size": 200},
    {"model_type": "bpe"},
    {"model_type": "bpe", "byte_fallback": True, "vocab_size": 470, **PLAIN},
    {"model_type": "bpe", "add_dummy_prefix": False, "normalization_rule_name": "nfkc_cf", "vocab_size": 200},
    {"model_type": "unigram", "user_defined_symbols": ["<sep>", "ab", "[X]"]},
    {"model_type": "unigram", "user_defined_symbols": ["\t", "\n", "abc", "ab"], "byte_fallback": True, "vocab_size": 470, **PLAIN},
    {"model_type": "bpe", "user_defined_symbols": ["<sep>", "ab", "[X]"]},
    {"model_type": "bpe", "user_defined_symbols": ["[X]"], "control_symbols": ["[INST]"], "byte_fallback": True, "vocab_size": 470},
    {"model_type": "bpe", "user_defined_symbols": ["  ", "\n", "x", "abc"], "byte_fallback": True, "vocab_size": 470, **PLAIN},
    {"model_type": "bpe", "user_defined_symbols": ["<sep>", "é"], "add_dummy_prefix": False},
    {"model_type": "bpe", "treat_whitespace_as_suffix": True},
    {"model_type": "unigram", "treat_whitespace_as_suffix": True},
    {"model_type": "unigram", "treat_whitespace_as_suffix": True, "byte_fallback": True, "vocab_size": 470, **PLAIN},
    {"model_type": "bpe", "treat_whitespace_as_suffix": True, "user_defined_symbols": ["<sep>"], "byte_fallback": True, "vocab_size": 470},
]
PARTS = st.sampled_from(
    [" ", "  ", "\n ", "\r\n", "\t", "a", "b", "ä", "e\u0301", "ﬁ", "½", "日", "😀", "▁", "</s>", "<unk>", "<0x41>", "<", "s>", ".", "x"]
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_sentencepiece_model_gives_its_own_ids(trained, kind):
    path, theirs = trained(**kind)
    ours = Tokenizer.from_str(sentencepiece_model.convert(path))
    ours.encode_special_tokens = True
    symbols = kind.get("user_defined_symbols", []) + kind.get("control_symbols", [])

    @hypothesis.settings(deadline=None, derandomize=True, max_examples=100)
    @hypothesis.given(
        text=st.lists((PARTS | st.sampled_from(symbols) if symbols else PARTS) | st.text("abcdefghilmnoprstuv ", max_size=9)).map("".join)
    )
    def same(text):
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text)
        assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids).replace(" \u2047 ", "<unk>")

    same()


def test_a_sentencepiece_model_fits_the_contract(trained):
    path, theirs = trained(model_type="unigram")
    ours = encoder(load(path, eos="</s>"))
    assert (ours.eos, ours.unk, ours.vocab_size, ours.lossless) == (theirs.eos_id(), theirs.unk_id(), 220, False)
    assert ours.eos not in ours.encode_open("a </s> b <eos>") and not ours.spelled_eos


def test_sentencepiece_models_that_are_refused(trained, tmp_path, monkeypatch):
    (tmp_path / "no.model").write_bytes(b"no model at all")
    with pytest.raises(RequestError, match=r"no\.model: not a SentencePiece model"):
        load(tmp_path / "no.model")
    (tmp_path / "no.model").write_bytes(b"")
    with pytest.raises(RequestError, match=r"no\.model: not a SentencePiece model"):
        load(tmp_path / "no.model")
    for kind, size in (("char", 20), ("word", 150)):
        path, _ = trained(model_type=kind, vocab_size=size)
        with pytest.raises(RequestError, match=f"cannot be converted: a {kind} model; give a tokenizer.json"):
            load(path)
    path, _ = trained(model_type="bpe")
    monkeypatch.setattr(
        sentencepiece_model, "_bpe", lambda pieces, path, real=sentencepiece_model._bpe: real([(p, -s, k) for p, s, k in pieces], path)
    )
    with pytest.raises(RequestError, match=r"cannot be converted: for .* SentencePiece gives ids \[.*\], the conversion \[.*; give a"):
        load(path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(RequestError, match=r"pip install 'packlm\[sentencepiece\]'"):
        load(path)


def test_symbols_of_the_user_need_a_bpe_model_whose_pieces_its_merges_give(trained):
    path, _ = trained(model_type="bpe", user_defined_symbols=["<sep>", "ab"])
    pieces = [("<unk>", 0.0, 2), ("a", -1.0, 1), ("b", -2.0, 1), ("c", -3.0, 1), ("abc", -4.0, 1), ("<sep>", 0.0, 4)]
    with pytest.raises(RequestError, match="user-defined symbols in a bpe model with a piece that no merges give"):
        sentencepiece_model._bpe(pieces, path)


# The hub


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one repository with a tokenizer, one without, and one that is gated."""

    text = b""

    def do_HEAD(self):
        name, _, _ = self.path.lstrip("/").partition("/resolve/main/")
        error = {"some/empty": "EntryNotFound", "some/gated": "GatedRepo", "some/words": ""}.get(name, "RepoNotFound")
        self.send_response({"": 200, "GatedRepo": 403}.get(error, 404))
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(self.text).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.text) if not error else 0))
        self.end_headers()
        return not error

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(self.text)

    def log_message(self, *args):
        pass


ASK = """
import sys
from packlm import config
from packlm.base.errors import RequestError
from packlm.text import tokenizers
for name in sys.argv[1:]:
    try:
        print(len(tokenizers.KINDS["file"].pretrained(config.Tokenizer(kind="file", file=name, eos="</s>"))))
    except RequestError as error:
        print(repr(str(error)))
"""


def test_a_tokenizer_of_the_hub(byte_level, tmp_path):
    Hub.text = byte_level.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    environment.pop("HF_HUB_OFFLINE", None)

    def ask(*names, **more):
        done = subprocess.run(
            [sys.executable, "-c", ASK, *names], env=environment | more, cwd=Path(__file__).parents[2], capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    try:
        found = ask("hub:some/words", "hub:some/empty", "hub:some/gated", "hub:some/other", "hub:not a name")
    finally:
        server.shutdown()
        server.server_close()
    assert found[0] == str(len(load(byte_level, eos="</s>")))
    for line, name, expected in zip(
        found[1:], ["some/empty", "some/gated", "some/other", "not a name"],
        ["no tokenizer.json in it", "owner has to grant access", "no such name on the hub", "not a name that the hub knows"], strict=True,
    ):  # fmt: skip
        assert f"hub:{name}: " in line and expected in line and r"\n" not in line
    # What was fetched once needs no network; what was not is one clear line.
    assert ask("hub:some/words", "hub:some/new", HF_HUB_OFFLINE="1") == [
        found[0], "'hub:some/new: the hub cannot be reached, and no copy is in the local cache; give the path of a tokenizer.json'"
    ]  # fmt: skip
