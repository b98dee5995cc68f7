"""prefect.yaml is the table of contents: what it names must exist and its defaults must be accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from infra.local_services import WORK_POOL

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "prefect.yaml").read_text()
CONTENTS = yaml.safe_load(TEXT)
DEPLOYMENTS: list[dict[str, Any]] = CONTENTS["deployments"]


def test_every_stage_has_one_deployment() -> None:
    assert [d["name"] for d in DEPLOYMENTS] == [
        "preprocess", "train", "crossval", "ablate", "segment", "evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_entrypoint_is_a_flow_that_takes_the_defaults(deployment: dict[str, Any]) -> None:
    # Without the placeholder that Prefect otherwise makes of a flow it cannot import.
    flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    assert flow.name == deployment["name"]
    flow.validate_parameters(deployment["parameters"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployment_waits_for_its_turn_and_never_starts_by_itself(deployment: dict[str, Any]) -> None:
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["work_pool"] == {"name": WORK_POOL}
    assert deployment["tags"]
    assert deployment["description"]
    assert not any(schedule["active"] for schedule in deployment.get("schedules", []))


def test_no_path_of_one_machine() -> None:
    assert not re.search(r"(?<![\w:/}.…-])/(?:home|root|tmp|work|Users|opt|data)\b", TEXT)
    (step,) = CONTENTS["pull"]
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $POINTLOOM_HOME }}"}}
