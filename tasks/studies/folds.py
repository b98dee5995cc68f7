"""Folds of a blocks dataset as split files: its blocks are read once, and none is cut again."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task

from models.training.losses import class_weights
from pointcloud.dataset import splits, store
from pointcloud.dataset.folds import Fold
from pointcloud.dataset.resplit import SplitBlocks, is_written, resplit, sum_places, write_split
from pointcloud.errors import PointloomError
from pointcloud.storage import files as storage


@task(name="split into folds")
def split_into_folds(dataset: str, folds: Sequence[Fold], out: str) -> dict[str, str]:
    """Write what is missing of the folds' split files below `out`; fold -> its file.

    Raises:
        PointloomError: a fold has nothing to train, to validate or to test on.
        SchemaError, StorageError: the dataset cannot be read.
    """
    logger = get_run_logger()
    files = {fold.name: storage.join(out, "folds", f"{fold.name}.parquet") for fold in folds}
    todo = [fold for fold in folds if not is_written(files[fold.name], dataset, fold.rule)]
    if not todo:
        return files
    manifest = store.read_manifest(dataset)
    sums = sum_places(dataset, manifest)
    for fold in todo:
        blocks = resplit(dataset, manifest, sums, fold.rule)
        _check(fold, blocks)
        write_split(files[fold.name], blocks)
        logger.info(
            "fold %s: %s", fold.name,
            ", ".join(f"{blocks.manifest.num_blocks(split)} blocks {split}" for split in splits.SPLITS),
        )  # fmt: skip
    return files


def _check(fold: Fold, blocks: SplitBlocks) -> None:
    counts = blocks.manifest.class_counts
    for split in splits.SPLITS:
        if not sum(counts[split]):
            raise PointloomError(
                f"fold {fold.name!r} has no labelled {split} block; use fewer folds, smaller squares (area_size_m), a "
                "larger val_fraction or another split_seed."
            )
    try:
        class_weights(counts[splits.TRAIN])
    except PointloomError as error:
        raise PointloomError(f"fold {fold.name!r}: {error}") from error
