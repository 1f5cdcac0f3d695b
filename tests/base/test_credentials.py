"""Addresses and texts without credentials."""

import base64
import logging
import sys
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from packlm.base import credentials, log
from packlm.base.credentials import echo, is_ambiguous, is_secret_name, public_address, without_credentials

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=30)


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_learned", set())


@given(PASSWORDS)
def test_no_part_of_a_password_is_shown(password: str) -> None:
    """Encoded or not: what one library takes for a host is still a part of the password."""
    for scheme in ("postgresql", "mysql+pymysql", "http", "https", "s3"):
        for text in (password, quote(password, safe="")):
            assert public_address(f"{scheme}://me:{text}@host:80/path") == f"{scheme}://***@host:80/path"


@given(PASSWORDS, PASSWORDS)
def test_a_correct_address_is_taken_apart_as_libraries_do_it(password: str, value: str) -> None:
    rest = f"://me:{quote(password, safe='')}@host:80/path?sig={quote(value, safe='')}"
    database, web = make_url("postgresql" + rest), urlsplit("http" + rest)
    assert (database.password, database.host, database.database) == (password, "host", "path") == (password, web.hostname, web.path[1:])
    for address in ("postgresql" + rest, "http" + rest):
        assert public_address(address).partition("://")[2] == "***@host:80/path?***" and not is_ambiguous(address)


@given(PASSWORDS)
def test_where_libraries_differ_the_address_is_ambiguous(password: str) -> None:
    """Such an address would put a part of the password into their messages, as a host."""
    for scheme in ("postgresql", "http"):
        address = f"{scheme}://me:{password}@host/path"
        if not is_ambiguous(address):
            host = make_url(address).host if scheme == "postgresql" else urlsplit(address).hostname
            assert host == "host"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("", ""),
        ("mlruns", "mlruns"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/me@work/a@b.db?timeout=9", "sqlite:////home/me@work/a@b.db?timeout=9"),
        ("file:///home/me@work", "file:///home/me@work"),
        ("sqlite+pysqlcipher://:secret@/mlflow.db", "sqlite+pysqlcipher://***@/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("http://host/a?sig=x#y", "http://host/a?***"),
        ("https://host/a#token=x", "https://host/a?***"),
        ("az://me@container/path", "az://***@container/path"),
        ("models:/NAME@champion", "models:/NAME@champion"),
    ],
)
def test_public_addresses(address: str, public: str) -> None:
    assert public_address(address) == public == public_address(public) and not is_ambiguous(address)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("GET http://me:p/w@h/x?a=b, refused", "GET http://***@h/x?***, refused"),
        ("(see https://h/x?X-Amz-Signature=1) and 'gs://b/c?sig=2'", "(see https://h/x?***) and 'gs://b/c?***'"),
        ("no address: a@b, c:d, 1://2, ://", "no address: a@b, c:d, 1://2, ://"),
    ],
)
def test_addresses_within_a_text(text: str, public: str) -> None:
    assert without_credentials(text) == public


def test_known_secrets_are_removed_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_environment")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:of%2Fan+index@host/")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "disabled_")
    credentials.learn_address('postgresql://me:pass/word"1@host/mlflow?sslmode=require&sig=signature')
    header = base64.b64encode(b'me:pass/word"1').decode()
    for secret in (
        "hf_of_environment",
        "of%2Fan+index",
        "of/an+index",
        'pass/word"1',
        "pass%2Fword%221",
        r"pass/word\"1",
        "signature",
        header,
    ):
        assert without_credentials(f"<{secret}> disabled_ require") == "<***> disabled_ require"


def test_a_word_of_the_public_part_is_no_secret() -> None:
    credentials.learn_address("postgresql://mlflow:mlflow@mlflow/mlflow")
    assert without_credentials("mlflow does not answer") == "mlflow does not answer"


def test_names_of_secrets() -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "azure_storage_connection_string", "X-Amz-Signature", "sig", "api_key"):
        assert is_secret_name(name), name
    for name in (
        "PWD",
        "TOKENIZERS_PARALLELISM",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "max_tokens",
        "GIT_AUTHOR_NAME",
        "AWS_SHARED_CREDENTIALS_FILE",
    ):
        assert not is_secret_name(name), name


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1, "-1"), ("1e300", "'1e300'"), ("adam", "'adam'"), ("hunter2", "text of 7 characters"), ([1, 2], "a value of type list")],
)
def test_a_rejected_value_is_shown_if_it_is_no_secret(value: object, shown: str) -> None:
    assert echo(value) == shown
    assert echo(10**5000) == "a number of more than 24 digits"


def test_everything_on_standard_error_is_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    credentials.learn("hunter2-hunter2")
    log.setup()
    logging.getLogger("packlm").info("our log: %s", "hunter2-hunter2")
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("a library").addHandler(handler)
    logging.getLogger("a library").error("http://me:pw@host?token=1")
    logging.getLogger("a library").removeHandler(handler)
    with log.progress(range(1), desc="hunter2-hunter2"):
        pass
    print("printed: hunter2-hunter2", file=sys.stderr)
    sys.stderr.writelines(["written: hunter2-hunter2\n"])
    log.setup()  # again: it is not wrapped twice
    captured = capsys.readouterr().err
    assert "hunter2" not in captured and "pw" not in captured and captured.count("***") >= 4 and "http://***@host?***" in captured
