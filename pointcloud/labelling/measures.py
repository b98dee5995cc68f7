"""From the logits of each point or voxel to its class, its confidence, and the probabilities of all classes."""

from __future__ import annotations

import numpy as np

from pointcloud.labelling.options import LabelOptions

STEP = 0.004
"""Entropies and probabilities are stored in steps of this, 250 of them from 0 to 1: one byte each."""


def class_and_confidence(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (P,) int64 of logits (P, C), and the softmax probability (P,) float32 of each."""
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    # The chosen class has exponent exp(0).
    return logits.argmax(axis=1), (1 / exponent.sum(axis=1)).astype(np.float32)


def summarise(logits: np.ndarray, options: LabelOptions) -> dict[str, np.ndarray]:
    """What the options want to know of each point or voxel, from its mean logits (P, C).

    Returns:
        classes: (P,) uint8, class indices; confidence: (P,) float32 in [0, 1]; and, where the options want them,
        entropy: (P,) uint8 in steps of `STEP`, of the probabilities, 1 where all C classes are equally likely;
        probabilities: (P, C) uint8 in steps of `STEP`.
    """
    classes, confidence = class_and_confidence(logits)
    # A byte a point: there may be a hundred million.
    measures = {"classes": classes.astype(np.uint8), "confidence": confidence}
    if options.entropy or options.probabilities:
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = exponent / exponent.sum(axis=1, keepdims=True)
        if options.entropy:
            # 0 · log 0 is 0; a single class leaves no doubt.
            log_share = np.log(share, out=np.zeros_like(share), where=share > 0)
            entropy = -(share * log_share).sum(axis=1) / np.log(max(share.shape[1], 2))
            measures["entropy"] = np.rint(entropy / STEP).astype(np.uint8)
        if options.probabilities:
            measures["probabilities"] = np.rint(share / STEP).astype(np.uint8)
    return measures
