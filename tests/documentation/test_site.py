"""The site of docs/ (`make site`): built without a warning; every page, setting and report is in it, and every link leads somewhere."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from packlm.config import Config

ROOT = Path(__file__).resolve().parents[2]


class Anchors(HTMLParser):
    """The links of a page, and what they can lead to within it."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        """Those that a browser opens by itself."""
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := values.get(key))]
        self.loaded += [value for key in ("href", "src") if tag in ("link", "script", "img") and (value := values.get(key))]
        self.ids |= {value for key in ("id", "name") if (value := values.get(key))}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Anchors]:
    """The pages of the built site."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The page of a wrong address has addresses for the root of a server.
    return {path: Anchors(path) for path in folder.rglob("*.html") if path.name != "404.html"}


def named(site: dict[Path, Anchors], name: str) -> Anchors:
    (page,) = (page for path, page in site.items() if path.as_posix().endswith(f"/{name}"))
    return page


def test_every_page_is_reached_from_the_first_one(site: dict[Path, Anchors]) -> None:
    """And there is one for each page of docs/ and each report."""
    home = next(path for path in site if path.name == "index.html" and path.parent.name != "benchmarks")
    reached = {(home.parent / urlsplit(link).path).resolve() for link in site[home].links if not urlsplit(link).netloc}
    assert set(site) <= reached
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("20*.md")]
    assert {path.stem for path in sources} <= {path.stem for path in site}


def test_the_reference_has_every_setting(site: dict[Path, Anchors]) -> None:
    names = {f"{section}.{name}" for section, settings in Config() for name in type(settings).model_fields}
    assert names - named(site, "settings.html").ids == set()


def test_the_reference_has_what_a_model_can_do(site: dict[Path, Anchors]) -> None:
    ids = named(site, "api.html").ids
    methods = {f"packlm.engine.Engine.{name}" for name in ("score", "evaluate", "generate", "next", "read", "step", "session", "fusion")}
    assert methods | {"packlm.load", "packlm.engine.Continuation.log_prob", "packlm.generation.session.TextSession.feed"} <= ids


def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Anchors]) -> None:
    wrong = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in site and anchor not in site[target].ids):
                wrong.append(f"{path.name}: {link}")
    assert wrong == []


def test_the_site_loads_nothing_from_elsewhere(site: dict[Path, Anchors]) -> None:
    assert [link for page in site.values() for link in page.loaded if urlsplit(link).netloc] == []
