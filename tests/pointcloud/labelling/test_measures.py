"""Classes, confidences and entropies are those of the softmax."""

from __future__ import annotations

import numpy as np
import pytest

from pointcloud.labelling.measures import STEP, class_and_confidence, summarise
from pointcloud.labelling.options import LabelOptions

LOGITS = np.random.default_rng(0).normal(0, 3, (500, 4)).astype(np.float32)
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_class_and_confidence_are_the_largest_of_the_softmax() -> None:
    classes, confidence = class_and_confidence(LOGITS)
    np.testing.assert_array_equal(classes, SOFTMAX.argmax(axis=1))
    np.testing.assert_allclose(confidence, SOFTMAX.max(axis=1), rtol=1e-5)


def test_large_logits_do_not_run_over() -> None:
    assert class_and_confidence(np.array([[1e4, 0.0], [-1e4, 0.0]]))[1].tolist() == [1.0, 1.0]


def test_only_what_the_options_want() -> None:
    assert set(summarise(LOGITS, LabelOptions())) == {"classes", "confidence"}
    measures = summarise(LOGITS, LabelOptions(entropy=True, probabilities=True))
    np.testing.assert_allclose(measures["probabilities"] * STEP, SOFTMAX, atol=STEP / 2 + 1e-6)
    entropy = -(SOFTMAX * np.log(SOFTMAX)).sum(axis=1) / np.log(4)
    np.testing.assert_allclose(measures["entropy"] * STEP, entropy, atol=STEP / 2 + 1e-6)
    assert measures["classes"].dtype == measures["entropy"].dtype == np.uint8


@pytest.mark.parametrize(
    ("logits", "entropy"), [([[2.0, 2.0, 2.0]], 1.0), ([[900.0, 0.0, 0.0]], 0.0), ([[3.0]], 0.0)]
)
def test_entropy_is_1_where_all_are_equal_and_0_without_doubt(
    logits: list[list[float]], entropy: float
) -> None:
    measures = summarise(np.array(logits), LabelOptions(entropy=True))
    assert measures["entropy"][0] * STEP == pytest.approx(entropy)
