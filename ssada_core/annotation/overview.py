"""What the page shows of the queries before one is opened: pictures, why they were asked, how far the budget is."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from ssada_core.annotation.colours import class_style
from ssada_core.annotation.desk import Who
from ssada_core.data.encodings import decode_compressed, encode_jpeg
from ssada_core.data.samples import Array
from ssada_core.errors import SsadaError
from ssada_core.labels import LabelSpace
from ssada_core.store.files import read_json
from ssada_core.store.pool import FramePool, FrameRecord, State

T = TypeVar("T")

SHOWN: tuple[State, ...] = ("queried", "held", "skipped", "labelled")
THUMBNAIL_WIDTH = 320
UNSURE = 0.6
"""Class probability under which a pixel counts as uncertain."""
WORST_CLASSES = 3


class Cache:
    """The last results of something slow, by key; safe from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], T]) -> T:
        """The value of ``key``, made where it is not there; two threads at once may both make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                found: T = self._values[key]
                return found
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        return value

    def peek(self, key: object) -> Any:  # noqa: ANN401 (whatever was made)
        """The value of ``key``, None where it is not there."""
        with self._lock:
            return self._values.get(key)

    def drop(self, first: object) -> None:
        """Forget everything whose key, a tuple, begins with ``first``."""
        with self._lock:
            for key in [key for key in self._values if key[0] == first]:
                del self._values[key]


def thumbnail(data: bytes) -> bytes:
    """A small JPEG of JPEG or PNG bytes.

    Raises:
        DataError: if they cannot be decoded.
    """
    image = decode_compressed(data)
    height, width = image.shape[:2]
    size = (THUMBNAIL_WIDTH, max(1, round(height * THUMBNAIL_WIDTH / width)))
    return encode_jpeg(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)), 85)


def label_space(space: LabelSpace) -> dict[str, Any]:
    """Classes with their colours, and with those that the colour-blind tell apart."""
    styles = [class_style(index) for index in range(space.num_classes)]
    return {
        "name": space.name,
        "classes": [
            {"name": name, "original": list(color), "safety": name in space.safety, **style}
            for name, color, style in zip(space.classes, space.colors, styles, strict=True)
        ],
    }


def doubts(label: Array, confidence: Array, classes: tuple[str, ...]) -> dict[str, Any]:
    """Where a model is unsure of a frame: the share of its pixels, and the classes that most of the doubt lies in."""
    doubt = np.bincount(label.ravel(), weights=255.0 - confidence.ravel(), minlength=256)[: len(classes)]
    worst = [int(index) for index in np.argsort(-doubt, kind="stable")[:WORST_CLASSES] if doubt[index] > 0]
    return {
        "unsure_share": float(np.mean(confidence < UNSURE * 255)),
        "unsure_classes": [classes[index] for index in worst],
    }


def describe(
    record: FrameRecord, *, doubt: Mapping[str, Any], lease: Who | None, person: str, drafted: bool
) -> dict[str, Any]:
    """A query as the list shows it."""
    return {
        "id": record.query_id,
        "state": record.state,
        "camera": record.camera,
        "vehicle": record.vehicle,
        "width": record.width,
        "height": record.height,
        "score": record.score,
        "audit": record.audit,
        "reason": record.reason,
        "batch": record.batch,
        "age_s": max(0.0, (time.time_ns() - record.stored_at) / 1e9),
        "annotator": record.annotator or "",
        "draft": drafted,
        "taken_by": "" if lease is None or lease.person == person else lease.name or "somebody",
        **doubt,
    }


def order(record: FrameRecord) -> tuple[int, float, int]:
    """Open queries first, the most wanted on top."""
    return SHOWN.index(record.state), -(record.score or 0.0), record.id


def progress(pool: FramePool, budget: int) -> dict[str, int]:
    """The budget in figures; without one, what was asked for counts as it."""
    counts = pool.stats().counts
    asked = sum(counts[state] for state in SHOWN)
    return {
        "asked": asked,
        "budget": budget or asked,
        **{state: counts[state] for state in ("queried", "labelled", "held", "skipped", "rejected")},
    }


def model_figures(pool: FramePool, registry: Path | None) -> dict[str, Any]:
    """The model that is asking, and what is known of it: from the registry where there is one, else from the pool."""
    records = [record for record in pool.frames(states=["queried"]) if record.model_version]
    version = str(records[-1].model_version) if records else ""
    figures: dict[str, Any] = {"version": version}
    if registry is not None:
        figures |= _registry_figures(registry)
    return figures


def _registry_figures(root: Path) -> dict[str, Any]:
    """The current version and its last judgement; nothing where the registry cannot be read just now.

    Read from its files: the registry's own class brings PyTorch with it, which this process has no use for.
    """
    try:
        version = str(read_json(root / "current")["version"])
        decision_file = root / version / "decision.json"
        decision = read_json(decision_file) if decision_file.exists() else {}
        metrics = read_json(root / version / "manifest.json").get("metrics") or {}
    except (SsadaError, KeyError, TypeError, AttributeError):
        return {}
    known = {"miou": decision.get("miou_challenger", metrics.get("miou")), "gain": decision.get("gain")}
    figures = {key: value for key, value in known.items() if isinstance(value, int | float)}
    return {"version": version, "words": str(decision.get("words", "")), **figures}
