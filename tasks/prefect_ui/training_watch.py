"""A training while it runs: a live table, curves and confusion in the Prefect UI; the figures of an epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from prefect import get_client
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from slugify import slugify

from tasks.prefect_ui.survey_map import as_data_uri
from tasks.prefect_ui.training_pictures import draw_confusion, draw_curves

_REFRESH_SECONDS = 5.0
_SCALARS = ("train_loss", "val_loss", "val_miou", "learning_rate", "seconds")


class TrainingWatch:
    """Three artifacts of one training, moved in place: metrics by epoch, curves, confusion of the last epoch.

    Args:
        key: of the artifacts.
        title: for people.
        names: of the C classes.
    """

    def __init__(self, key: str, title: str, names: Sequence[str]) -> None:
        self._names, self._shown = tuple(names), 0.0
        self._history: list[dict[str, Any]] = []
        self._confusion: Sequence[Sequence[int]] = [[0] * (len(names) + 1) for _ in names]
        data = self._data()
        self._table: Any = create_table_artifact(
            [{"epoch": "none yet"}], key=slugify(f"metrics-{key}"), description=f"{title}: metrics by epoch"
        )
        self._pictures: list[Any] = [
            create_image_artifact(picture, key=slugify(f"{what}-{key}"), description=f"{title}: {what}")
            for what, picture in zip(("curves", "confusion"), data[1:], strict=True)
        ]

    def set(self, history: Sequence[dict[str, Any]], confusion: Sequence[Sequence[int]]) -> None:
        """The records of all epochs, as `TrainState` keeps them, and the last one's (C, C + 1) confusion."""
        self._history = list(history)
        self._confusion = confusion
        if time.monotonic() - self._shown >= _REFRESH_SECONDS:
            self.show()

    def show(self) -> None:
        """Bring everything up to date now."""
        if not self._history:
            return
        self._shown = time.monotonic()
        with get_client(sync_client=True) as client:
            for artifact, data in zip((self._table, *self._pictures), self._data(), strict=True):
                client.update_artifact(artifact, ArtifactUpdate(data=data))

    def _data(self) -> tuple[str, str, str]:
        rows = [
            {key: _rounded(epoch.get(key)) for key in ("epoch", *_SCALARS)}
            | {f"IoU {n}": _rounded(v) for n, v in zip(self._names, epoch["val_iou"], strict=True)}
            for epoch in reversed(self._history)
        ]
        curves = as_data_uri(draw_curves(self._history))
        return json.dumps(rows), curves, as_data_uri(draw_confusion(self._confusion, self._names))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def scalars(epoch: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    """What a tracker draws of an epoch: name -> value; what is undefined is left out."""
    found = {key: epoch[key] for key in _SCALARS} | {
        f"iou/{name}": value for name, value in zip(names, epoch["val_iou"], strict=True)
    }
    return {key: float(value) for key, value in found.items() if value is not None}
