"""Labelled clouds against the truth."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.parameters.evaluate import EvaluateParameters
from tasks.evaluating.evaluate import evaluate_pairs


def check(parameters: EvaluateParameters) -> None:
    """Check what can be checked before work starts. Raises PointloomError."""
    parameters.job()


@flow(name="evaluate")
def evaluate(parameters: EvaluateParameters) -> dict[str, Any]:
    """Score every point against the truth and write a report; returns the scores."""
    return evaluate_pairs(parameters.job())
