"""Secrets that are planted in all places where a command meets them are in no file that it leaves, and in none of its output.

Real processes, and a server that refuses everything and repeats what it was sent, as careless ones do.
"""

import base64
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("PACKLM_TEST_SEED", random.randrange(10**6)))
SPECIAL = "/@:%+="
"""What passwords have that addresses must encode."""
TINY = {
    "corpus.format": "text", "corpus.train": "corpus", "corpus.validation_fraction": "0.3", "tokenizer.kind": "character",
    "model.layers": "1", "model.hidden": "8", "train.max_steps": "3", "train.processes": "1", "generate.max_tokens": "3",
    "evaluate.baselines": "false", "dataset.workers": "1", "run.name": "tiny",
}  # fmt: skip


class Careless(BaseHTTPRequestHandler):
    """Refuses every request, and repeats its address and headers in the answer."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = 404 if "404" in self.path else 401
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": f"no: {self.path} {self.headers}", "error": f"no {self.headers}"})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body.encode())

    do_GET = do_POST = do_PUT = do_HEAD = do_PATCH = do_DELETE = answer

    def log_message(self, *ignored: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The host and port of a server that refuses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class World:
    """A folder that holds everything that a command may write, and the secrets that must not be in it."""

    def __init__(self, folder: Path):
        self.folder, self.secrets = folder, dict[str, str]()
        self.output = b""
        self._random = random.Random(f"{SEED} {folder.name}")
        print(f"seed {SEED}")
        (folder / "corpus").mkdir()
        for number in range(8):
            words = self._random.choices(["the", "cat", "sat", "on", "a", "mat"], k=30)
            (folder / "corpus" / f"{number}.txt").write_text(" ".join(words) + ".\n")

    def secret(self, shape: str, special: str = "") -> str:
        """A new secret: letters, with all of `special` among them."""
        letters = [*self._random.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789", k=20)]
        for character in special:
            letters.insert(self._random.randrange(4, 16), character)
        self.secrets[shape] = "".join(letters)
        return self.secrets[shape]

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        """Runs `python -m WORDS`; returns the exit status and all output."""
        places = {name: str(self.folder / name) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME")}
        for place in places.values():
            Path(place).mkdir(exist_ok=True)
        known = {name: value for name, value in os.environ.items() if not name.startswith(("PACKLM_", "MLFLOW_", "HF_", "AWS_"))}
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=self.folder, capture_output=True, timeout=240,
            env=known | places | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""} | environment,
        )  # fmt: skip
        self.output += done.stdout + done.stderr
        return done.returncode, (done.stdout + done.stderr).decode()

    def leaks(self) -> list[str]:
        """The places of the secrets that are found: as they are, encoded, in base64, and in parts that a `/` or `@` has separated."""
        texts = {"output": self.output}
        texts |= {str(path): bytes(path) + (path.read_bytes() if path.is_file() else b"") for path in self.folder.rglob("*")}
        found = []
        for shape, secret in self.secrets.items():
            parts = [part for part in secret.replace("@", "/").replace(":", "/").replace("%", "/").split("/") if len(part) > 4]
            forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), *parts}
            wanted = {form.encode() for form in forms} | {base64.b64encode(f"me:{secret}".encode())}
            found += [f"{shape} in {name}" for name, text in texts.items() if any(form in text for form in wanted)]
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.long
def test_a_whole_run(world: World, server: str) -> None:
    """All stages, the store refusing; then what is done with the run's folder."""
    password = quote(world.secret("password of basic authentication", SPECIAL), safe="")
    environment = {
        "MLFLOW_TRACKING_URI": f"http://me:{password}@{server}/store?sig={world.secret('signature in the query')}",
        "MLFLOW_TRACKING_TOKEN": world.secret("bearer token"),
        "HF_TOKEN": world.secret("token of the hub"),
        "AWS_SECRET_ACCESS_KEY": world.secret("key of the object store", "/+"),
        "DATABASE_URL": f"postgresql://me:{world.secret('password of another program')}@db/x",
    }
    settings = [word for key, value in TINY.items() for word in (f"--{key}", value)]
    status, output = world.run("pipeline", "run", *settings, **environment)
    assert status == 0, output
    assert f"http://***@{server}/store?***" in output
    assert f'uri = "http://***@{server}/store?***"' in (world.folder / "runs/tiny/config.toml").read_text()
    assert world.leaks() == []

    again = ["--config", "runs/tiny/config.toml"]
    for command in (["pipeline", "run"], ["train"], ["serve", "evaluate"]):
        status, output = world.run(*command, *again)
        assert status == 2 and "set MLFLOW_TRACKING_URI to the whole address" in output and len(output.splitlines()) == 1
    status, output = world.run("preprocess", *again, **environment)
    assert status == 0 and "up to date" in output, output
    assert world.run("pipeline", "config", *again, **environment)[0] == 0
    assert world.run("pipeline", "sync", *again, **environment)[0] == 1
    assert world.run("pipeline", "compare", "nothing", "nowhere", "--tracking.uri", environment["MLFLOW_TRACKING_URI"])[0] != 0
    assert world.leaks() == []


@pytest.mark.parametrize("encoded", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_password_of_a_database(world: World, encoded: bool) -> None:
    for special in (*SPECIAL, SPECIAL):
        secret = world.secret(f"password with {special}", special)
        uri = f"postgresql+psycopg2://me:{quote(secret, safe='') if encoded else secret}@127.0.0.1:1/mlflow"
        status, output = world.run("pipeline", "config", MLFLOW_TRACKING_URI=uri)
        if "@" in special and not encoded:
            assert status == 2 and "@ as %40" in output
        else:
            assert status == 0 and "postgresql+psycopg2://***@127.0.0.1:1/mlflow" in output
    secret = world.secret("password of a database that does not answer", SPECIAL if encoded else "/:%")
    uri = f"postgresql+psycopg2://me:{quote(secret, safe='') if encoded else secret}@127.0.0.1:1/mlflow"
    status, output = world.run("pipeline", "compare", "a", "b", MLFLOW_TRACKING_URI=uri)
    assert status == 1 and "postgresql+psycopg2://***@127.0.0.1:1/mlflow does not answer" in output, output
    assert world.leaks() == []


def test_refused_values_options_and_addresses(world: World, server: str) -> None:
    """All of it is wrong, and is refused before any work."""
    secret = world.secret
    settings = [
        ("train.lr", secret("number")),
        ("train.optimizer", secret("choice")),
        ("train.epochs", f'["{secret("list")}"]'),
        ("model.hidden", f'{{a = "{secret("table")}"}}'),
        ("dataset.slurm", f'{{partition = ["{secret("option")}"]}}'),
        ("dataset.slurm", f'{{secret_access_key = "{secret("access key")}"}}'),
        ("dataset.slurm", f'{{partition = "a --export=HF_TOKEN={secret("exported variable")}"}}'),
        ("dataset.storage_options", f'{{key = "{secret("key")}", secret = "{secret("storage options")}"}}'),
        ("corpus.encoding", secret("codec")),
        ("corpus.train", f"https://host/a.txt?X-Amz-Signature={secret('signature of a corpus')}"),
        ("corpus.train", f"http://me:{secret('password of a corpus', '/@')}@{server}/a.txt"),
        ("corpus.test", f"hub:https://me:{secret('password of a dataset')}@{server}/a"),
        ("train.init", f"s3://bucket/model?token={secret('token of a model')}"),
        ("tokenizer.file", f"https://host/t.json?sig={secret('signature of a tokenizer')}"),
        ("dataset.dir", f"az://me:{secret('password of a dataset folder')}@host/data"),
        ("generate.prompts", f"https://me:{secret('password of prompts')}@host/prompts"),
        ("tracking.uri", f"http://me:{secret('password with a slash', '/')}@{server}"),
        ("tracking.urii", f"http://me:{secret('misspelt setting')}@{server}"),
    ]
    while settings:  # as many at once as have different keys
        round = dict(reversed(settings))
        settings = [setting for setting in settings if setting not in round.items()]
        status, output = world.run("pipeline", "run", *(word for key, value in round.items() for word in (f"--{key}", value)))
        named = {line.split(":")[0].strip().removesuffix(".0") for line in output.splitlines()[1:]}
        assert status == 2 and named == round.keys(), output
    for words in (
        [f"--hf-token={secret('unknown option')}"],
        ["--hf-token", secret("unknown option with a space")],
        [f"--token:{secret('unknown option with a colon')}"],
        [secret("extra argument")],
        ["--rebuild", f"http://me:{secret('extra address', '/@')}@{server}"],
    ):
        status, output = world.run("pipeline", "run", *words)
        assert status == 2 and len(output.splitlines()) == 1, output
    assert world.run("preprocess", secret("unknown command"))[0] == 2
    for option in ("--model", "--data", "--text", "--out"):  # as a path it has one slash
        address = f"http://me:{secret(f'address as {option}', '/@')}@{server}/x?sig=1"
        status, output = world.run("serve", "evaluate", option, address, "--config", "ptb-fast")
        assert status in (1, 2), output
    assert world.run("serve", "evaluate", "--precision", secret("choice of an option"))[0] == 2
    assert world.run("train", PACKLM_TRAIN__EPOCHS=secret("variable"))[0] == 2
    (world.folder / "values.toml").write_text(f'[train]\nlr = "{secret("value in a file")}"\n')
    assert world.run("train", "--config", "values.toml")[0] == 2
    (world.folder / "values.toml").unlink()
    assert not (world.folder / "runs").exists()
    assert world.leaks() == []


def test_a_corpus_of_the_hub(world: World, server: str) -> None:
    token = world.secret("token of the hub")
    settings = ["--corpus.format", "auto", "--corpus.train", "hub:me/private", "--run.name", "mine", "--tracking.uri", ""]
    status, output = world.run("preprocess", *settings, HF_TOKEN=token, HF_ENDPOINT=f"http://{server}")
    assert status == 2 and "hub:me/private: cannot be loaded: " in output and "Traceback" not in output, output
    assert world.leaks() == []


def test_the_text_of_an_exception(world: World) -> None:
    """The last line of defence, its trace file, and the log and errors of libraries."""
    password, key = world.secret("password", "/@"), world.secret("key")
    program = (
        "import logging, os, sys\nfrom packlm.base import credentials, errors, log\nlog.setup()\nlogging.basicConfig()\n"
        "logging.getLogger('a.library').warning('retrying %s', os.environ['SOME_URL'])\n"
        "def main():\n    try:\n        raise OSError(os.environ['SOME_URL'])\n"
        "    except OSError as error:\n        raise RuntimeError('x' * 270 + ' ' + os.environ['SOME_API_KEY']) from error\n"
        "errors.run(main)\n"
    )
    (world.folder / "failing.py").write_text(program)
    status, output = world.run("failing", SOME_URL=f"https://me:{password}@host/x?sig={key}", SOME_API_KEY=key)
    assert status == 1 and "unexpected: RuntimeError" in output
    traces = list((world.folder / "TMPDIR").glob("*.trace.txt"))
    assert len(traces) == 1 and "***" in traces[0].read_text()
    assert world.leaks() == []
