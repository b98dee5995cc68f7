"""Where a training is recorded beside Prefect: TensorBoard files, a run in MLflow."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from slugify import slugify

from pointcloud.storage import files


class TensorBoardFiles:
    """TensorBoard event files in a folder or bucket, written with tensorboardX, which comes with Ray Train.

    Args:
        uri: where they go; a file per run of the task. After an epoch its very last
            figure may be missing until the next.

    Raises:
        ModuleNotFoundError: tensorboardX is not installed.
    """

    called, package = "TensorBoard", "tensorboardX"
    starts_anew = False  # the files of the runs before lie beside it

    def __init__(self, uri: str) -> None:
        from tensorboardX import SummaryWriter

        self._uri, self._folder = uri, tempfile.TemporaryDirectory()
        self._writer, self._step = SummaryWriter(self._folder.name), 0

    def add(self, step: int, values: dict[str, float]) -> None:
        """Record the values of a step."""
        if step > self._step:  # otherwise the step is in the file already, and only the copy had failed
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
            self._step = step
        self._copy()

    def close(self, failed: bool = False) -> None:
        """End the record."""
        self._writer.close()
        try:
            self._copy()
        finally:
            self._folder.cleanup()

    def _copy(self) -> None:
        for file in Path(self._folder.name).iterdir():
            files.write_bytes(files.join(self._uri, file.name), file.read_bytes())


class MLflowRun:
    """A run on the server that MLFLOW_TRACKING_URI names.

    Args:
        name: of the run.
        settings: its parameters.

    Raises:
        ModuleNotFoundError: MLflow is not installed.
        Exception: the server does not answer, or refuses.
    """

    called, package = "MLflow", "mlflow-skinny"
    starts_anew = True  # a training that goes on is another run there

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        # MLflow would otherwise retry for minutes, in every epoch.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow

        self._mlflow = mlflow
        self._id = mlflow.start_run(run_name=name).info.run_id
        try:
            mlflow.log_params(settings)
        except Exception:
            with suppress(Exception):  # otherwise the run would stay open on the server
                mlflow.end_run("FAILED")
            raise

    def add(self, step: int, values: dict[str, float]) -> None:
        """Record the values of a step."""
        # MLflow allows few characters in names. Without the id it would start another run if it has lost this one.
        named = {slugify(key, separator="_"): value for key, value in values.items()}
        self._mlflow.log_metrics(named, step=step, run_id=self._id)

    def close(self, failed: bool = False) -> None:
        """End the record."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")
