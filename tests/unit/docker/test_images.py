"""What can be checked of the images and the compose files without a container engine."""

import json
import re
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from scheduler.cli import cli
from scheduler.machine.doctor import CHECKS

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))


def compose(name: str) -> dict:
    return yaml.safe_load((DOCKER / name).read_text("utf-8"))


def allowed_in_context() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text("utf-8").split()
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_everything_copied_exists_and_is_in_the_build_context(path: Path) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text("utf-8"), re.MULTILINE)
    sources = {word for line in copied for word in line.split()}
    assert sources
    assert sources <= allowed_in_context()
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_run_an_existing_command_as_an_ordinary_user_with_a_health_check(path: Path) -> None:
    text = path.read_text("utf-8")
    (command,) = re.findall(r'^CMD \["(\w+)"\]', text, re.MULTILINE)
    assert command in cli.list_commands(click.Context(cli))
    assert re.search(r"^USER genmill$", text, re.MULTILINE)
    (words,) = re.findall(r'CMD (\["genmill", "doctor".*\])', text)
    doctor = cli.get_command(click.Context(cli), "doctor")
    names = doctor.make_context("doctor", json.loads(words)[2:]).params["names"]
    assert set(names) <= set(CHECKS)
    assert ("workers" in (names or CHECKS)) == (command == "worker")


def test_the_scheduler_image_installs_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert not [need for need in project["dependencies"] if need.startswith("torch")]
    assert [need for need in project["optional-dependencies"]["worker"] if need.startswith("torch")]
    assert "[worker]" not in (DOCKER / "scheduler.Dockerfile").read_text("utf-8")
    assert "'.[worker]'" in (DOCKER / "worker.Dockerfile").read_text("utf-8")


def test_compose_runs_commands_that_exist_from_images_that_are_built() -> None:
    services = compose("compose.yaml")["services"]
    built = {service["image"] for service in services.values() if "build" in service}
    ours = {name: s for name, s in services.items() if s["image"].startswith("genmill-")}
    assert {service["image"] for service in ours.values()} == built
    for service in ours.values():
        if "command" in service and service["command"] != ["--help"]:
            assert service["command"][0] in cli.list_commands(click.Context(cli))


def test_compose_gives_every_service_a_health_check_and_hard_codes_no_password() -> None:
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    services = yaml.safe_load(text)["services"]
    for name in ("postgres", "redis", "s3"):
        assert services[name]["healthcheck"]["test"]
    required = set(re.findall(r"\$\{(\w+):\?", text))
    stated = re.findall(r"^(\w+)=", (DOCKER / "env.example").read_text("utf-8"), re.MULTILINE)
    assert required == set(stated)
    assert not re.findall(r"(?i)password: (?!\$\{)\S", text)


def test_compose_depends_only_on_services_and_volumes_that_it_declares() -> None:
    file = compose("compose.yaml")
    for service in file["services"].values():
        assert set(service.get("depends_on", {})) <= set(file["services"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source.startswith(".") or source in file["volumes"]


def test_the_gpu_override_only_changes_services_of_the_base() -> None:
    override = compose("compose.gpu.yaml")["services"]
    assert set(override) <= set(compose("compose.yaml")["services"])
    (device,) = override["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
