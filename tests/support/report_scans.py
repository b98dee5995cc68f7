"""Small made-up scans the report's tests look at."""

from __future__ import annotations

import numpy as np

from models.metrics import confusion
from pointcloud.labels import IGNORE, PRESETS
from tasks.report.content import Report, ScanView

SCHEME = PRESETS["ground-vegetation-building"]


def scan(name: str = "tile", num_points: int = 400, seed: int = 0, scored: bool = True) -> ScanView:
    """Points over 20 × 10 units far from the origin; about a tenth wrong, some unscored, when `scored`."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform((2_445_180, 604_300, 1350), (2_445_200, 604_310, 1360), (num_points, 3))
    truth = rng.integers(0, 3, num_points)
    after = np.where(rng.random(num_points) < 0.9, truth, rng.integers(0, 3, num_points))
    before = np.where(rng.random(num_points) < 0.5, truth, IGNORE)
    truth[::10] = IGNORE
    confidence = rng.random(num_points)
    return ScanView(name, xyz, before, after, truth if scored else None, confidence if scored else None)


def report(*scans: ScanView, **changes: object) -> Report:
    """A report of the scans with the confusion of those that have truth, and three epochs."""
    scored = [s for s in scans if s.truth is not None]
    counts = sum(confusion(s.after, s.truth, 3) for s in scored if s.truth is not None) if scored else None
    content = {
        "title": "Night run",
        "subtitle": "SIMULATED survey",
        "scheme": SCHEME,
        "scans": scans,
        "confusion": counts,
        "history": [
            {"epoch": e, "train_loss": 1 / e, "val_miou": miou, "learning_rate": 1e-3, "seconds": 2.0}
            for e, miou in ((1, 0.5), (2, 0.75), (3, None))
        ],
        "facts": {"CRS": "EPSG:6880"},
        "unit": "ft",
    }
    return Report(**(content | changes))
