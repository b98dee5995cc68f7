"""The ready-made network for airborne scans and how it is trained, in one place for all benchmarks."""

from __future__ import annotations

from typing import Any

from models.recipes import AIRBORNE
from pointcloud.grid.block_config import BlockConfig

FEATURES = (
    "xyz", "returns",
    *(f"pyramid_shape_{radius}" for radius in ("1m", "2m", "4m", "8m", "16m", "32m")),
    *(f"pyramid_echoes_{radius}" for radius in ("1m", "2m", "4m", "8m")),
)  # fmt: skip

# Four shifted grids to learn from; who segments has one unless they ask for more.
BLOCKS = BlockConfig(tile_size_m=64.0, halo_m=4.0, voxel_size_m=0.4, max_points=131_072, overlap=2)

NETWORK: dict[str, Any] = {
    "num_layers": 5, "channels": 32, "convolution": "mr", "dilations": (1, 1, 2, 2), "dynamic": False,
    "fusion_channels": 0, "prediction_channels": (64, 32),
}  # fmt: skip
"""Fields of `DeepGCNConfig`. A fused vector would say which block this is, and a large block is all sorts of ground."""

PLAN: dict[str, Any] = {
    "batch_size": 2, "learning_rate": 3e-3, "ema_decay": 0.98, "class_weights": False, "loss": "lovasz",
    "rugged": 0.1, "thinning": 8.0, "return_drop": 0.1, **AIRBORNE,
}  # fmt: skip
"""Fields of `TrainConfig` in which the training differs from the recipe `modern`."""

BLOCKS_PER_PLACE = 32
"""Of each place that an epoch takes, at most: a large place counts no more than a small one."""
