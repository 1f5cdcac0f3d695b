"""What must hold of `docker-compose.yml`, `Dockerfile` and `make up` without running them: nothing is exposed, no secret is written down,
and every container either stays, and says how it is, or ends."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
LASTING = {"postgres", "mlflow", "serve"}
ENDING = {"upgrade", "train-gpu", *(stage.name for stage in STAGES)}


def strings(value: Any) -> list[str]:
    """Every text in a YAML value, keys aside."""
    if isinstance(value, dict | list):
        return [text for inner in (value.values() if isinstance(value, dict) else value) for text in strings(inner)]
    return [str(value)]


def test_every_service_lasts_or_ends() -> None:
    assert set(SERVICES) == LASTING | ENDING
    lasting = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped" and "healthcheck" in service}
    ending = {name for name, service in SERVICES.items() if service["restart"] == "no" and not {"healthcheck", "ports"} & set(service)}
    assert (lasting, ending) == (LASTING, ENDING)


def test_a_plain_up_runs_no_stage() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == LASTING | {"upgrade"}


def test_ports_are_published_on_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"mlflow", "serve"}
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port) for ports in published.values() for port in ports)
    assert not any("network_mode" in service for service in SERVICES.values())


def test_only_the_server_reaches_the_database() -> None:
    assert yaml.safe_load(TEXT)["networks"]["database"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "database" in service["networks"]} == {"postgres", "upgrade", "mlflow"}
    assert SERVICES["postgres"]["networks"] == ["database"]


def test_passwords_are_required_and_nowhere_written_down() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|KEY", re.IGNORECASE)
    given = [(key, value) for service in SERVICES.values() for key, value in service.get("environment", {}).items() if secret.search(key)]
    assert {key for key, _ in given} == {"POSTGRES_PASSWORD", "PGPASSWORD"}
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for _, value in given)
    assert not [text for text in strings(SERVICES) if re.search(r"://[^/\s]*:[^/\s]*@", text)]
    assert "\nPOSTGRES_PASSWORD=\n" in (ROOT / ".env.example").read_text(encoding="utf-8")
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored and "!.env" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_every_variable_is_explained() -> None:
    explained = re.findall(r"(?m)^#?(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"))
    assert set(re.findall(r"\$\{(\w+)", TEXT)) | {"COMPOSE_PROJECT_NAME"} == set(explained)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_containers_have_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] in ("packlm", "postgres")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_stages_share_one_image_and_only_read_corpora_and_recipes() -> None:
    for name in ENDING - {"upgrade"}:
        service = SERVICES[name]
        assert service["image"] == SERVICES["serve"]["image"]
        places = {volume.split(":/packlm/")[-1] for volume in service["volumes"]}
        assert places == {"configs:ro", "corpora:ro", "data", "runs", "cache"}


def test_the_tracking_server_takes_the_names_that_it_is_called_by() -> None:
    command = SERVICES["mlflow"]["command"]
    assert "--allowed-hosts=mlflow:*,localhost:*,127.0.0.1:*" in command
    assert "--serve-artifacts" in command
    assert SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert SERVICES["train"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "http://mlflow:5000/api/" in SERVICES["mlflow"]["healthcheck"]["test"][-1]


def test_images_hold_every_package() -> None:
    taken = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {folder.partition("/")[0] for folder in setup["package-dir"].values()}
    assert taken == {*folders, "pyproject.toml", "constraints.txt"}


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_make_up_runs_the_stages_in_order(profile: str) -> None:
    words = ["make", "-n", "up", "COMPOSE=compose", f"PROFILE={profile}", "CONFIG=configs/ptb-fast.toml", "ARGS=--train.lr 1"]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ran = re.findall(r"(?m)^compose run --rm -T --no-deps (\S+) (.*)$", printed)
    expected = [stage.name for stage in STAGES]
    if profile == "gpu":
        expected[expected.index("train")] = "train-gpu"
    assert ran == [(name, "--config configs/ptb-fast.toml --train.lr 1") for name in expected]
    assert "MODEL=ptb-fast compose up" in printed


@pytest.mark.parametrize(("answer", "deleted"), [("", False), ("yes\n", False), ("delete\n", True)])
def test_clean_volumes_asks_first(answer: str, deleted: bool) -> None:
    words = ["make", "clean-volumes", "COMPOSE=echo compose"]
    done = subprocess.run(words, cwd=ROOT, input=answer, capture_output=True, text=True, check=False)
    assert ("compose --profile" in done.stdout, done.returncode == 0) == (deleted, deleted)
