"""The frames of one round: chosen once, written down, and held in memory as the camera's own bytes."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssada_core.adaptation.round import DATA_FILE, RoundSpec
from ssada_core.data.encodings import decode_compressed, picture_size
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import Array, Samples, Subset
from ssada_core.errors import DataError, StoreError, WorkerError
from ssada_core.labels import IGNORE, LabelSpace
from ssada_core.store.files import read_json, write_json
from ssada_core.store.pool import FrameRecord
from ssada_core.store.pool_reader import PoolReader

KINDS = ("labelled", "audit", "unlabelled")
MOST_REPEATED = 4
"""Times that a frame of a rarely labelled road stands in a balanced mix at most."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundData:
    """What the round trains on and what judges it. ``audit`` shares no frame with the others (contract 3).

    Attributes:
        labelled: frames to train on; ``labelled_domains`` has the road of each.
        sparse: which of them are labelled in parts, so that the rest counts as unlabelled; None: the labels tell.
        unlabelled: likewise.
        audit: frames that judge, with their stamps and roads.
        cases: the regression cases, with their query ids: flagged frames that judge and are never trained on.
        source: the source pack, or None.
    """

    labelled: Samples
    unlabelled: Samples
    audit: Samples
    audit_stamps_ns: tuple[int, ...]
    source: Samples | None
    labelled_domains: tuple[str, ...] = ()
    unlabelled_domains: tuple[str, ...] = ()
    audit_domains: tuple[str, ...] = ()
    cases: Samples | None = None
    case_ids: tuple[str, ...] = ()
    sparse: frozenset[int] | None = None

    def balanced(self) -> Samples:
        """The labelled frames with those of rarely labelled roads repeated: what was learned is not forgotten."""
        return Subset(self.labelled, self._mix())

    def balanced_sparse(self) -> tuple[int, ...] | None:
        """Indices in :meth:`balanced` of the frames that are labelled in parts; None: the labels tell."""
        return None if self.sparse is None else tuple(i for i, index in enumerate(self._mix()) if index in self.sparse)

    def _mix(self) -> list[int]:
        most = max(self.labelled_domains.count(domain) for domain in set(self.labelled_domains))
        indices = []
        for index, domain in enumerate(self.labelled_domains):
            indices += [index] * min(MOST_REPEATED, max(1, round(most / self.labelled_domains.count(domain))))
        return indices

    def case_labels(self) -> dict[str, str]:
        """SHA-256 of each regression case's label, by query id: a correction makes another one."""
        labels = {case: self.cases.label(index) for index, case in enumerate(self.case_ids)} if self.cases else {}
        return {
            case: hashlib.sha256(label.tobytes()).hexdigest() for case, label in labels.items() if label is not None
        }


@dataclass(frozen=True)
class StoredFrame:
    """A frame as it lies in the pool: its record, encoded image, and label if there is one."""

    record: FrameRecord
    image: bytes
    label: Array | None


class SnapshotSamples:
    """Pool frames held as encoded bytes: the pool may evict a frame while the round still trains on it."""

    def __init__(self, frames: Sequence[StoredFrame]) -> None:
        self._frames = list(frames)

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        """See :class:`~ssada_core.data.samples.Samples`."""
        record = self._frames[index].record
        return f"{record.camera}-{record.stamp_ns}"

    def image(self, index: int) -> Array:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return decode_compressed(self._frames[index].image)

    def label(self, index: int) -> Array | None:
        """See :class:`~ssada_core.data.samples.Samples`."""
        return self._frames[index].label


class _WatchedSamples:
    """Samples that say when a frame of theirs is read: the work gets on."""

    def __init__(self, samples: Samples, tell: Callable[[], None]) -> None:
        self._samples = samples
        self._tell = tell

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        return self._samples.name(index)

    def image(self, index: int) -> Array:
        self._tell()
        return self._samples.image(index)

    def label(self, index: int) -> Array | None:
        return self._samples.label(index)


def watched(data: RoundData, tell: Callable[[], None]) -> RoundData:
    """The same frames; ``tell`` is called whenever one is read."""
    return replace(
        data,
        labelled=_WatchedSamples(data.labelled, tell),
        unlabelled=_WatchedSamples(data.unlabelled, tell),
        audit=_WatchedSamples(data.audit, tell),
        cases=_WatchedSamples(data.cases, tell) if data.cases is not None else None,
        source=_WatchedSamples(data.source, tell) if data.source is not None else None,
    )


def gather(pool: PoolReader, spec: RoundSpec, run_dir: Path, label_space: LabelSpace) -> RoundData:
    """Choose the round's frames, or find the ones a previous attempt of the same round chose.

    Labels that came after the round's start wait for the next one; a correction of a label counts at once, but
    what a frame is to the round (its road, and whether it is labelled in parts) stays what it was at the start. A
    labelled frame that was purged since then is left out, and the trainer refuses to go on without it: what a human
    took back must not stay in the weights. An unlabelled frame that was evicted is no loss: its neighbour stands in.

    Raises:
        WorkerError: if there is no labelled frame to train on, or the list of frames is damaged.
        DataError: if the source pack cannot be read, or its labels are not of ``label_space``.
        StoreError: if the pool cannot be read.
    """
    path = run_dir / DATA_FILE
    if not path.exists():
        write_json(path, _choose(pool, spec))
    chosen = read_json(path)
    if not isinstance(chosen, dict) or not set(KINDS) <= set(chosen):
        raise WorkerError(f"{path} is damaged: delete the folder to give the round up")
    domains = chosen.get("domains", {})  # a list of an earlier release has none
    records = {
        record.id: replace(record, domain=domains.get(str(record.id), record.domain)) for record in pool.frames()
    }
    labelled, audit = (_labelled(pool, records, chosen[kind]) for kind in ("labelled", "audit"))
    cases = _labelled(pool, records, chosen.get("cases", []))
    unlabelled = _unlabelled(pool, records, chosen["unlabelled"])
    if not labelled:
        raise WorkerError(
            f"{run_dir}: the pool {spec.pool_dir} has no labelled frame to train on: answer queries first"
        )
    return RoundData(
        labelled=SnapshotSamples(labelled),
        unlabelled=SnapshotSamples(unlabelled),
        audit=SnapshotSamples(audit),
        audit_stamps_ns=tuple(frame.record.stamp_ns for frame in audit),
        source=open_samples(spec.source_pack, label_space) if spec.source_pack else None,
        labelled_domains=tuple(frame.record.domain for frame in labelled),
        unlabelled_domains=tuple(frame.record.domain for frame in unlabelled),
        audit_domains=tuple(frame.record.domain for frame in audit),
        cases=SnapshotSamples(cases),
        case_ids=tuple(str(frame.record.query_id) for frame in cases),
        sparse=_positions(labelled, chosen["sparse"]) if "sparse" in chosen else None,
    )


def name_of_unnamed(pool: PoolReader, run_dir: Path) -> str:
    """The name by which the road is known now that had none when the round chose its frames; empty if it has none.

    Raises:
        StoreError: if pool or list cannot be read.
    """
    path = run_dir / DATA_FILE
    chosen = read_json(path) if path.exists() else {}
    domains = chosen.get("domains", {}) if isinstance(chosen, dict) else {}
    unnamed = {int(frame_id) for frame_id, domain in domains.items() if not domain}
    names = Counter(record.domain for record in pool.frames() if record.id in unnamed and record.domain)
    return names.most_common(1)[0][0] if names else ""


def _positions(frames: Sequence[StoredFrame], ids: Sequence[int]) -> frozenset[int]:
    return frozenset(index for index, frame in enumerate(frames) if frame.record.id in ids)


def _choose(pool: PoolReader, spec: RoundSpec) -> dict[str, Any]:
    labelled = [record for record in pool.frames(states=["labelled"]) if _sound(pool, record)]
    unlabelled = _newest(pool.frames(states=["buffered", "queried", "skipped"], audit=False), spec)
    trained = [record for record in labelled if not record.audit]
    return {
        "labelled": [record.id for record in trained],
        "audit": [record.id for record in labelled if record.audit and record.clip is None],
        "cases": [record.id for record in labelled if record.audit and record.clip is not None],
        "unlabelled": [record.id for record in unlabelled],
        "domains": {str(record.id): record.domain for record in [*labelled, *unlabelled]},
        "sparse": [record.id for record in trained if _open_share(pool, record) > spec.training.sparse_share],
    }


def _open_share(pool: PoolReader, record: FrameRecord) -> float:
    label = pool.label(record)
    return 0.0 if label is None else float(np.mean(label == IGNORE))


def _sound(pool: PoolReader, record: FrameRecord) -> bool:
    """Whether image and label can be read; one bad block of the disk must not end every round from now on."""
    try:
        pool.image(record)
        pool.label(record)
    except (StoreError, DataError) as error:
        _log.warning("query %s is left out of the round: %s", record.query_id, error)
        return False
    return True


def _newest(frames: Sequence[FrameRecord], spec: RoundSpec) -> list[FrameRecord]:
    """The newest frames, at least half of them of the target, the rest shared by the other roads."""
    by_domain: dict[str, list[FrameRecord]] = {}
    for record in frames:
        by_domain.setdefault(record.domain, []).append(record)
    own = by_domain.pop(spec.target, [])
    share = spec.max_unlabelled // (2 * len(by_domain)) if by_domain else 0
    others = [record for records in by_domain.values() for record in records[len(records) - min(share, len(records)) :]]
    kept = own[-(spec.max_unlabelled - len(others)) :] if spec.max_unlabelled > len(others) else []
    chosen = {record.id for record in [*kept, *others]}
    return [record for record in frames if record.id in chosen]


def _labelled(pool: PoolReader, records: Mapping[int, FrameRecord], ids: Sequence[int]) -> list[StoredFrame]:
    """Frames with their labels; those that were purged or rejected are left out."""
    found = [records[frame_id] for frame_id in ids if frame_id in records]
    kept = [record for record in found if record.state == "labelled"]
    return [StoredFrame(record, pool.image_bytes(record), pool.label(record)) for record in kept]


def _unlabelled(pool: PoolReader, records: Mapping[int, FrameRecord], ids: Sequence[int]) -> list[StoredFrame]:
    """As many frames as ids, so that a resumed round draws the same batches: the next one there fills a gap."""
    filled: list[StoredFrame] = []
    gap = 0
    for frame_id in ids:
        frame = _read(pool, records.get(frame_id))
        gap += 1
        if frame is not None:
            filled += [frame] * gap
            gap = 0
    return filled + filled[-1:] * gap


def _read(pool: PoolReader, record: FrameRecord | None) -> StoredFrame | None:
    if record is None or record.state == "rejected":
        return None
    try:
        image = pool.image_bytes(record)
        picture_size(image)
    except (StoreError, DataError):
        return None  # evicted by the node since the list was read, or damaged
    return StoredFrame(record, image, None)
