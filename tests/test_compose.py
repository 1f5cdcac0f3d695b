"""Static checks of `docker-compose.yml`, `Dockerfile` and `make up`: no exposed ports, no secrets, few privileges; every service either
is long-running with a health check, or runs once."""

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
LONG_RUNNING = {"postgres", "mlflow", "serve"}
RUN_ONCE = {"upgrade", "train-gpu", *(stage.name for stage in STAGES)}


def strings(value: Any) -> list[str]:
    """All strings in a YAML value, without keys."""
    if isinstance(value, dict | list):
        return [text for inner in (value.values() if isinstance(value, dict) else value) for text in strings(inner)]
    return [str(value)]


def test_every_service_is_long_running_or_runs_once() -> None:
    assert set(SERVICES) == LONG_RUNNING | RUN_ONCE
    long_running = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped" and "healthcheck" in service}
    run_once = {name for name, service in SERVICES.items() if service["restart"] == "no" and not {"healthcheck", "ports"} & set(service)}
    assert (long_running, run_once) == (LONG_RUNNING, RUN_ONCE)


def test_a_plain_up_runs_no_stage() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == LONG_RUNNING | {"upgrade"}


def test_ports_are_published_on_localhost_only() -> None:
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
    secrets = [(key, value) for service in SERVICES.values() for key, value in service.get("environment", {}).items() if secret.search(key)]
    assert {key for key, _ in secrets} == {"POSTGRES_PASSWORD", "PGPASSWORD"}
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for _, value in secrets)
    assert not [text for text in strings(SERVICES) if re.search(r"://[^/\s]*:[^/\s]*@", text)]
    assert "\nPOSTGRES_PASSWORD=\n" in (ROOT / ".env.example").read_text(encoding="utf-8")
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".env" in ignored and "!.env" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_every_variable_is_explained() -> None:
    explained = re.findall(r"(?m)^#?(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"))
    assert set(re.findall(r"\$\{(\w+)", TEXT)) | {"COMPOSE_PROJECT_NAME"} == set(explained)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_containers_have_few_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] in ("packlm", "postgres")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_stages_share_one_image_and_only_read_corpora_and_recipes() -> None:
    for name in RUN_ONCE - {"upgrade"}:
        service = SERVICES[name]
        assert service["image"] == SERVICES["serve"]["image"]
        mounts = {volume.split(":/packlm/")[-1] for volume in service["volumes"]}
        assert mounts == {"configs:ro", "corpora:ro", "data", "runs", "cache"}


def test_the_tracking_server_accepts_the_host_names_of_its_clients() -> None:
    command = SERVICES["mlflow"]["command"]
    assert "--allowed-hosts=mlflow:*,localhost:*,127.0.0.1:*" in command
    assert "--serve-artifacts" in command
    assert SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert SERVICES["train"]["environment"]["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "http://mlflow:5000/api/" in SERVICES["mlflow"]["healthcheck"]["test"][-1]


def test_images_hold_every_package() -> None:
    included = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {folder.partition("/")[0] for folder in setup["package-dir"].values()}
    assert included == {*folders, "pyproject.toml", "constraints.txt"}


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
