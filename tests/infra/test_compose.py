"""No docker engine is needed to tell that images, addresses and settings agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.environment import ENVIRONMENT
from infra.local_services import WORK_POOL

INFRA = Path(__file__).parents[2] / "infra"
TEXT = (INFRA / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if service["image"].startswith("pointloom:")}
EVERYWHERE = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AUTH_MODE": "token",
    "POINTLOOM_HOME": "/data",
}


def command(name: str) -> str:
    given = SERVICES[name]["command"]
    return given if isinstance(given, str) else " ".join(given)


def test_schema() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            INFRA / "compose.yaml",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_wait_for_services_that_can_say_so() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], f"{name} waits for {other}, which has no healthcheck"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other]["restart"] == "no", f"{other} would never be completed"


def test_addresses_name_services_and_the_ports_they_listen_on() -> None:
    listening = {
        ("prefect-server", "4200"): "--port 4200",
        ("ray-head", "6379"): "--port=6379",
        ("object-store", "8333"): "-s3.port=8333",
        ("postgres", "5432"): None,  # the image's own
    }
    addresses = re.sub(r"image: .*", "", TEXT)
    called = set(re.findall(rf"\b({'|'.join(SERVICES)}):(\d+)", addresses))
    assert called == set(listening)
    for (name, _), option in listening.items():
        assert option is None or option in command(name)
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", OWN)
def test_own_services_have_every_setting(name: str) -> None:
    environment = OWN[name]["environment"]
    assert EVERYWHERE.items() <= environment.items()
    assert environment["PREFECT_API_URL"] == "http://prefect-server:4200/api"


def test_the_services_of_make_up_have_the_same_settings() -> None:
    shared = EVERYWHERE.items() - {("RAY_AUTH_MODE", "token"), ("POINTLOOM_HOME", "/data")}
    assert shared <= ENVIRONMENT.items()


def test_the_image_has_the_same_settings_and_one_name() -> None:
    dockerfile = (INFRA / "Dockerfile").read_text()
    for name, value in EVERYWHERE.items():
        assert f"{name}={value}" in dockerfile
    assert len({service["image"] for service in OWN.values()}) == 1
    assert f"-t {OWN['ray-head']['image']}" in dockerfile
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)


def test_work_pool_is_the_one_that_is_deployed_to() -> None:
    assert f"work-pool create {WORK_POOL} " in command("deploy")
    assert f"--pool {WORK_POOL} " in command("prefect-worker")


def test_secrets_are_asked_for_and_never_given() -> None:
    wanted = set(re.findall(r"\$\{(\w+)", TEXT))
    assert all(f"${{{name}:?" in TEXT for name in wanted), "compose must refuse to start without them"
    assert not re.search(r"\$\{\w+:?-", TEXT), "a default would be everybody's password"
    example = re.findall(r"^(\w+)=(.*)$", (INFRA / "example.env").read_text(), re.MULTILINE)
    assert {name for name, _ in example} == wanted
    assert not any(value for _, value in example)


def test_volumes_and_configs_exist() -> None:
    for service in SERVICES.values():
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])


def test_every_service_has_a_memory_limit() -> None:
    assert all("mem_limit" in service for service in SERVICES.values())
