"""Changes one value of a JSON or TOML file to something that it never is."""

import json
import random
import tomllib
from pathlib import Path
from typing import Any

from packlm.config import toml_value

from .readers import choose, judge_reader
from .verdict import Verdict
from .world import World

_MARK = "\ue000a mark"
RAW = {
    "NaN": "NaN", "Infinity": "-Infinity", "1e400": "1e400", "5,000 digits": "9" * 5000, "nested 20,000 deep": "[" * 20_000 + "]" * 20_000,
    "nested 900 deep": "[" * 900 + "]" * 900, "an unpaired surrogate": '"\\ud800"', "NUL": '"a\\u0000b"',
}  # fmt: skip
"""Values as JSON text, of which some are no JSON."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(2**63), 0.5, 1e300, "", "x", "../../etc/passwd", "/etc/passwd", "0",
    "ü" * 9, [], {},    [[]], [None], {"": None}, {"a": {"b": 1}}, "a" * 100_000,
)  # fmt: skip


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One mutation of one file."""
    name, path = choose(world, generator, (".json", ".jsonl", ".toml"))
    what = f"{path.relative_to(world.folder)}: {mutate(path, generator)}"
    return judge_reader(world, name, path, what)


def mutate(path: Path, generator: random.Random) -> str:
    """Mutates a file in its place; returns how."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        mutated, how = _mutate_toml(text, generator)
    elif path.suffix == ".jsonl":
        lines = text.splitlines()
        number = generator.randrange(len(lines)) if lines else 0
        line, how = mutate_json(lines[number], generator) if lines else ("", "empty")
        mutated, how = "\n".join([*lines[:number], line, *lines[number + 1 :]]) + "\n", f"line {number + 1}: {how}"
    else:
        mutated, how = mutate_json(text, generator)
    path.write_bytes(mutated.encode("utf-8", "surrogatepass"))
    return how


def mutate_json(text: str, generator: random.Random) -> tuple[str, str]:
    """The text with one value, key or the whole changed, and how."""
    values = json.loads(text)
    places = list(_places(values))
    container, key = generator.choice(places) if places and generator.random() < 0.97 else (None, None)
    kind = generator.choice(["value", "value", "raw", "missing", "unknown", "doubled", "similar", "similar"])
    if container is None:
        raw = generator.choice(list(RAW))
        return RAW[raw], f"the whole is {raw}"
    old, where = container[key], f"{key!r}"
    if kind == "missing":
        del container[key]
        return json.dumps(values, ensure_ascii=False), f"{where} removed"
    if kind == "unknown" and isinstance(container, dict):
        container["unknown"] = 1
        return json.dumps(values, ensure_ascii=False), f"a key beside {where}"
    if kind == "doubled" and isinstance(container, dict):
        container[key] = _MARK
        new = json.dumps(generator.choice(VALUES))
        return json.dumps(values, ensure_ascii=False).replace(
            json.dumps(_MARK, ensure_ascii=False), f"{json.dumps(old)}, {json.dumps(key)}: {new}", 1
        ), f"{where} twice, then {new[:60]}"
    if kind == "raw":
        raw = generator.choice(list(RAW))
        container[key] = _MARK
        return json.dumps(values, ensure_ascii=False).replace(json.dumps(_MARK, ensure_ascii=False), RAW[raw], 1), f"{where} = {raw}"
    new = _similar(old, generator) if kind == "similar" else generator.choice(VALUES)
    container[key] = new
    return json.dumps(values, ensure_ascii=False), f"{where}: {str(old)[:60]!r} -> {str(new)[:60]!r}"


def _similar(value: Any, generator: random.Random) -> Any:
    """Another value of the same type: what somebody would edit."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + generator.choice([1, -1, 0.5 if isinstance(value, float) else 7])
    if isinstance(value, str):
        return value[:-1] + chr(generator.randrange(97, 123)) if value and generator.random() < 0.5 else value + "x"
    if isinstance(value, list):
        return value[1:] if value else [1]
    return dict(list(value.items())[1:]) if isinstance(value, dict) else 1


def _places(value: Any) -> Any:
    """(container, key) of every value within a value."""
    if isinstance(value, dict | list):
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            yield value, key
            yield from _places(inner)


def _mutate_toml(text: str, generator: random.Random) -> tuple[str, str]:
    sections = tomllib.loads(text)
    section = generator.choice(list(sections))
    key = generator.choice(list(sections[section]))
    new: Any = generator.choice([value for value in VALUES if value is not None and (not isinstance(value, int) or abs(value) < 2**63)])
    notation = generator.choice(
        [toml_value(new), "nan", "-inf", "1e400", "9" * 5000, "[" * 5000 + "]" * 5000, "1979-05-27", '"\\u0000"', "{}"]
    )
    lines = [
        f"[{name}]\n" + "".join(f"{k} = {notation if (name, k) == (section, key) else toml_value(v)}\n" for k, v in entries.items())
        for name, entries in sections.items()
    ]
    return "".join(lines), f"{section}.{key} = {notation[:60]}"
