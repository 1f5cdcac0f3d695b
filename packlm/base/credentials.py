"""Keeps credentials out of everything that is printed or written.

Two rules, applied to every text on its way out (standard error as a whole, errors of libraries, what MLflow is sent):

- the secrets that this process knows, those of its environment and of its addresses, are replaced wherever they occur;
- of an address, only scheme, host and path are shown; a user name, a password, a query and a fragment never are.

Settings that are written to a file are serialized by the second rule: `tracking.uri` is the only one that may hold credentials at all.
"""

import base64
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote, urlsplit

REMOVED = "***"
"""Stands in place of a credential."""
SHORTEST = 6
"""Shorter values are not searched for in texts: they occur in them by chance. In an address they are removed all the same."""

LONG = 16
"""A value in a query that is as long is taken for a secret, whatever its name."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"<>`]*[^\s'\"<>`.,;:)\]}]")
_SECRET_NAME = re.compile(
    r"TOKEN(?!IZ|S)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|SIGNATURE|(API|ACCESS|ACCOUNT|PRIVATE|SHARED)_?KEY|CONNECTION_?STRING"
    r"|(^|[_-])(AUTH|AUTHORIZATION|PASS|PWD|SAS|SIG|KEY|CODE)$",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(r"PWD|OLDPWD|GOOGLE_APPLICATION_CREDENTIALS|.*_(FILE|PATH|DIR|SOCK)")
_learned: set[str] = set()


def without_credentials(text: str) -> str:
    """The text without the secrets that this process knows, and with scheme, host and path alone of each address in it."""
    if secrets := _known_secrets(frozenset(_learned), tuple(os.environ.items())):
        text = secrets.sub(REMOVED, text)
    return _ADDRESS.sub(lambda match: public_address(match[0]), text)


def public_address(address: str) -> str:
    """An address that may be shown and stored: `***@` in place of the user, `?***` of the query. Paths stay as they are."""
    scheme, separator, rest = address.partition("://")
    if _is_path(address):
        return address
    _, at, rest = rest.rpartition("@")
    location = re.split(r"[?#]", rest, maxsplit=1)[0]
    return scheme + separator + (REMOVED + at if at else "") + location + (f"?{REMOVED}" if location != rest else "")


def is_ambiguous(address: str) -> bool:
    """Whether programs disagree on what of an address is its user name and password, because they hold characters that must be encoded.

    Everything up to the last `@` is never shown; a program that takes less for the password shows the rest of it as a host.
    """
    scheme, _, rest = address.partition("://")
    user = rest.rpartition("@")[0]
    if _is_path(address) or not user:
        return False
    if scheme not in ("http", "https"):
        return "@" in user  # SQLAlchemy reads a password up to the first one; for the web, the host ends at `/`, `?` and `#`, too
    try:
        return urlsplit(address).netloc.rpartition("@")[0] != user
    except ValueError:
        return True


def was_removed(address: str) -> bool:
    """Whether this is an address as `public_address` leaves it, so that its credentials have to come from somewhere else."""
    return f"://{REMOVED}@" in address or address.endswith(f"?{REMOVED}")


def learn(*secrets: str) -> None:
    """Adds secrets of this process to those that are removed from texts, however they are quoted there."""
    _learned.update(form for secret in secrets for form in _forms(secret))


def learn_address(text: str) -> None:
    """Learns the password and the values in the query of an address, or of one within an argument (`--uri=ADDRESS`).

    Words of its public part are no secrets.
    """
    if address := re.search(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://.*", text, re.DOTALL):
        learn(*_of_address(address[0]))


def is_secret_name(name: str) -> bool:
    """Whether a variable or option of this name holds a credential."""
    return bool(_SECRET_NAME.search(name)) and not _NO_SECRET.fullmatch(name.upper())


def echo(value: object) -> str:
    """A rejected value in a message: a number or a short word as it is, anything longer, which may be a credential, by its length."""
    if isinstance(value, int) and abs(value) >= 10**24:  # Python does not write one of more than 4,300 digits
        return "a number of more than 24 digits"
    text = value if isinstance(value, str) else repr(value)
    if len(text) < SHORTEST or (len(text) < 25 and re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", text)):
        return repr(value)
    return f"text of {len(text):,} characters" if isinstance(value, str) else f"a value of type {type(value).__name__}"


def _is_path(address: str) -> bool:
    scheme, separator, rest = address.partition("://")
    return not separator or (scheme in ("sqlite", "file") and rest.startswith("/"))


def _of_address(address: str) -> set[str]:
    if _is_path(address):
        return set()
    user, _, location = address.partition("://")[2].rpartition("@")
    items = [item.partition("=") for item in re.split(r"[&;]", re.split(r"[?#]", location, maxsplit=1)[1])] if "?" in location else []
    values = {value for name, _, value in items if is_secret_name(name) or len(value) >= LONG}
    header = base64.b64encode(unquote(user).encode()).decode() if user else ""  # as servers that say too much repeat it
    public = public_address(address)
    return {secret for secret in {user, user.partition(":")[2], header, *values} if secret and secret not in public}


@lru_cache(maxsize=1)  # the log may have many lines
def _known_secrets(learned: frozenset[str], environment: tuple[tuple[str, str], ...]) -> re.Pattern[str] | None:
    """Matches what was learned, and the secrets in the environment: values of variables with such a name, and those of addresses."""
    secrets: set[str] = set()
    for name, value in environment:
        secrets |= _of_address(value)
        if is_secret_name(name) and value.lower() not in ("false", "true", "disabled", "enabled"):
            secrets.add(value)
    forms = learned | {form for secret in secrets for form in _forms(secret)}
    return re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None


def _forms(secret: str) -> Iterable[str]:
    """A secret, encoded and decoded as addresses, JSON and Python show it."""
    plain = (secret, unquote(secret))
    forms = {form for text in plain for form in (text, quote(text), quote(text, safe=""), quote_plus(text))}
    forms |= {form for text in plain for form in (json.dumps(text)[1:-1], repr(text)[1:-1])}
    return (form for form in forms if len(form) >= SHORTEST)
