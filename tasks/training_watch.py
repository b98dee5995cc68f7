"""A training while it runs: a live table, curves and confusion in the Prefect UI, TensorBoard files, MLflow."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.artifacts import create_image_artifact, create_table_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from slugify import slugify

from pointcloud import storage
from tasks.survey_map import as_data_uri
from tasks.training_pictures import draw_confusion, draw_curves

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


class TensorBoardFiles:
    """TensorBoard event files in a folder or bucket, written with tensorboardX, which comes with Ray Train.

    Args:
        uri: where they go; a file per run of the task. After an epoch its very last
            figure may be missing until the next.
    """

    starts_anew = False  # the files of the runs before lie beside it

    def __init__(self, uri: str) -> None:
        from tensorboardX import SummaryWriter

        self._uri, self._folder = uri, tempfile.TemporaryDirectory()
        self._writer = SummaryWriter(self._folder.name)

    def add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
        self._copy()

    def close(self, failed: bool = False) -> None:
        self._writer.close()
        self._copy()
        self._folder.cleanup()

    def _copy(self) -> None:
        for file in Path(self._folder.name).iterdir():
            storage.write_bytes(storage.join(self._uri, file.name), file.read_bytes())


class MLflowRun:
    """A run on the server that MLFLOW_TRACKING_URI names.

    Args:
        name: of the run.
        settings: its parameters.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
        Exception: the server does not answer, or refuses.
    """

    starts_anew = True  # a training that goes on is another run there

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        # Its own patience is minutes, and is had again in every epoch.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow

        self._mlflow = mlflow
        # By id: MLflow's active run belongs to a thread, and epochs come from another.
        self._id = mlflow.start_run(run_name=name).info.run_id
        mlflow.log_params(settings)

    def add(self, step: int, values: dict[str, float]) -> None:
        # Its names take no other signs.
        named = {slugify(key, separator="_"): value for key, value in values.items()}
        self._mlflow.log_metrics(named, step=step, run_id=self._id)

    def close(self, failed: bool = False) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


def trackers(
    uri: str, name: str, settings: dict[str, Any], logger: Any
) -> list[TensorBoardFiles | MLflowRun]:
    """What records a training beside Prefect; what cannot be had is named in the log, and the training goes on."""
    found: list[TensorBoardFiles | MLflowRun] = []
    try:
        found.append(TensorBoardFiles(uri))
    except ModuleNotFoundError:
        logger.warning("no TensorBoard files: tensorboardX is not installed; pip install tensorboardX")
    if os.environ.get("MLFLOW_TRACKING_URI"):
        try:
            found.append(MLflowRun(name, settings))
        except ModuleNotFoundError:
            logger.warning(
                "MLFLOW_TRACKING_URI is set and MLflow is not installed; pip install mlflow-skinny"
            )
        except Exception as error:  # whatever its server or client is about, the training needs neither
            logger.warning(
                "no MLflow run: %s does not take one (%s)", os.environ["MLFLOW_TRACKING_URI"], error
            )
    return found
