"""Stages of a flow as Prefect tasks that may be handed large collections.

Prefect comes with the first call: the processes that work on scans import modules with stages, and call none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def stage_task(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: calls of the function are runs of a Prefect task of this name.

    Prefect walks through the parameters of its tasks, also through the fields of dataclasses, several times a call:
    minutes for ten thousand scans (PrefectHQ/prefect#10370). This task has one parameter, a function, which Prefect
    does not look into.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            from prefect import task
            from prefect.cache_policies import NO_CACHE

            @task(name=name, cache_policy=NO_CACHE)
            def begin(call: Callable[[], R]) -> R:
                return call()

            return begin(lambda: function(*args, **kwargs))

        return called

    return decorate
