"""Hooks of mkdocs (`mkdocs.yml`): pages of the site that are not in this folder, tables of all settings, and the links between them.

A link is written for the repository, where it leads to a file. In the site it leads to the page that the file has become. A file that has
become none, as a recipe or a program, is named without a link.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from packlm.config import Config, explanations, toml_value

ROOT = Path(__file__).resolve().parents[1]
REPORTS = sorted((f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("20*.md")), reverse=True)
FIGURES = [f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.png")]
ADDED = ["CHANGELOG.md", "SECURITY.md", "benchmarks/README.md", *REPORTS, *FIGURES]
"""Files of the repository that the site has, beside those of this folder."""
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def on_config(config: MkDocsConfig) -> None:
    """Adds the reports to the navigation, the newest first."""
    reports = [{f"{name[:10]} {name[11:].replace('-', ' ')}": path} for path in REPORTS if (name := Path(path).stem)]
    config.nav.append({"Reports": [{"All reports": "benchmarks/README.md"}, *reports]})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the files from outside this folder."""
    for path in ADDED:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adds the tables to the page of settings, and turns the links of every page to those of the site."""
    uri = page.file.src_uri
    if uri == "settings.md":
        markdown += settings()
    here = posixpath.dirname(uri if uri in ADDED else f"docs/{uri}")

    def in_site(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(here, target))
        if not (ROOT / path).exists():
            return link[0]  # which mkdocs complains of
        path = "benchmarks/README.md" if path == "benchmarks" else path.removeprefix("docs/")
        if not files.get_file_from_path(path):
            return text
        return f"[{text}]({posixpath.relpath(path, posixpath.dirname(uri) or '.')}{anchor})"

    return LINK.sub(in_site, markdown)


def settings() -> str:
    """A table of the settings of each section."""
    lines = ["\n## All settings\n"]
    for name, section in Config():
        meanings, schemas = explanations(type(section)), type(section).model_json_schema()["properties"]
        lines += [f"### {name}\n", "| setting | values | default | meaning |", "|---|---|---|---|"]
        for key, value in section.model_dump(mode="json").items():
            default = "" if "Default:" in meanings[key] else "not set" if value is None else f"`{toml_value(value)}`"
            lines.append(f"| <code id='{name}.{key}'>{name}.{key}</code> | {values(schemas[key])} | {default} | {meanings[key]} |")
        lines.append("")
    return "\n".join(lines)


def values(schema: dict[str, Any]) -> str:
    """What a setting may be, by its JSON schema."""
    match schema:
        case {"anyOf": kinds}:
            return " or ".join(values(kind) for kind in kinds if kind != {"type": "null"})
        case {"enum": choices}:
            return ", ".join(f"`{choice}`" for choice in choices)
        case {"const": choice}:
            return f"`{choice}`"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array", "items": items}:
            return f"list: {values(items)}"
        case {"type": "object"}:
            return "table"
    bounds = [f"{word} {schema[key]:,}".removesuffix(".0") for key, word in BOUNDS.items() if key in schema]
    return ", ".join([schema.get("format", schema["type"]), *bounds])
