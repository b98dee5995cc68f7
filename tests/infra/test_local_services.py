"""`make up` to `make down` with real processes on free ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from infra import local_services, prefect_api
from infra.service_state import HOST, read_state
from tests.support.services import BASE_PORT, ended, running_in, services, trigger


def test_a_taken_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert local_services.free_port(port) > port


def test_up_needs_a_project(tmp_path: Path) -> None:
    done = services(tmp_path, "up")
    assert done.returncode == 1
    assert done.stderr == f"error: no prefect.yaml in {tmp_path}; run this in the folder of the project.\n"


@pytest.mark.slow
def test_a_start_that_fails_midway_leaves_nothing(project: Path) -> None:
    (project / "prefect.yaml").write_text("deployments: [{name: x, entrypoint: flows.nowhere.nowhere}]\n")
    done = services(project, "up", "--port", str(BASE_PORT))
    assert done.returncode == 1
    assert "'prefect deploy --all' failed" in done.stderr
    assert "deploy.log" in done.stderr
    assert read_state(project / ".pointloom" / "up") is None
    assert not running_in(project)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_up_a_flow_run_and_down(project: Path) -> None:
    (project / "report").mkdir()
    up = services(project, "up", "--port", str(BASE_PORT))
    assert up.returncode == 0, up.stdout + up.stderr
    state = read_state(project / ".pointloom" / "up")
    assert state is not None
    assert f"Prefect UI   {state.url}" in up.stdout

    names = prefect_api.deployments(state.api_url)
    flows = ("ablate", "crossval", "evaluate", "preprocess", "segment", "train")
    assert names == [f"{flow}/{flow}" for flow in flows]
    automations = prefect_api.ask(state.api_url, "/automations/filter", {})
    assert [a["name"] for a in automations] == ["pointloom-lost-flow-runs"]

    # A second `up` starts nothing.
    again = services(project, "up", "--port", str(BASE_PORT))
    assert again.returncode == 0
    assert again.stdout.startswith("Already up.")
    assert read_state(project / ".pointloom" / "up") == state

    # A relative path counts from the project: the sentence proves that the file there was opened.
    (project / "here.las").write_bytes(b"no LAS at all" * 100)
    run = trigger(state.api_url, "preprocess", {"scans": ["here.las"], "out": "blocks"})
    end = ended(state.api_url, run)
    assert end["type"] == "FAILED"
    assert "here.las" in end["message"]
    assert (project / "blocks" / "ledger").exists()

    down = services(project, "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert "Ended: Prefect server, Prefect worker." in down.stdout
    assert not running_in(project)
    assert services(project, "down").stdout == "Nothing is running.\n"
