"""What a model says of a frame, reduced to the statistics that acquisition needs."""

from __future__ import annotations

import numpy as np

from ssada_core.inference.engine import Prediction
from ssada_core.store.pool import FrameScores


def summarise(prediction: Prediction, *, model_version: str, num_classes: int) -> FrameScores:
    """Mean uncertainty and confidence, pixels per predicted class, and the pooled features (METHOD §5)."""
    histogram = np.bincount(prediction.label.ravel(), minlength=num_classes)[:num_classes]
    return FrameScores(
        model_version=model_version,
        uncertainty=prediction.uncertainty,
        confidence=float(prediction.confidence.mean()) / 255.0,
        histogram=histogram.tolist(),
        features=prediction.features,
    )
