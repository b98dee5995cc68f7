"""A stage is a Prefect task, and Prefect does not look into what it is handed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from prefect import flow
from prefect.context import TaskRunContext

from tasks.runtime.stage import stage_task
from tests.support.prefect_server import prefect_server

__all__ = ["prefect_server"]

pytestmark = pytest.mark.usefixtures("prefect_server")


@dataclass
class Counted:
    """Says how often its field was looked at."""

    looks: int = 0

    @property
    def field(self) -> str:
        self.looks += 1
        return "value"

    def __getattribute__(self, name: str) -> object:
        if name == "__dataclass_fields__":
            object.__setattr__(self, "looks", object.__getattribute__(self, "looks") + 1)
        return object.__getattribute__(self, name)


@stage_task("count scans")
def count(given: Counted, more: int = 1) -> tuple[str, int]:
    """How many."""
    context = TaskRunContext.get()
    assert context is not None
    return context.task.name, given.looks + more


def test_prefect_does_not_walk_through_what_a_stage_is_handed() -> None:
    @flow
    def running() -> tuple[str, int]:
        return count(Counted(), more=5)

    assert running() == ("count scans", 5)


def test_what_a_stage_raises_comes_out() -> None:
    @stage_task("fail")
    def fail() -> None:
        raise KeyError("as it is")

    @flow
    def failing() -> None:
        fail()

    with pytest.raises(KeyError, match="as it is"):
        failing()
