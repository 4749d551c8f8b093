"""Ground truth of a drive: a label topic of the recording, or a folder of label images."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ssada_core.data.bag_messages import UNREADABLE, read_label, stamp_of
from ssada_core.data.bag_recovery import RecoveredBag
from ssada_core.data.damage import Damage
from ssada_core.data.encodings import decode_label
from ssada_core.data.image_files import images_by_stem, natural, read_bytes
from ssada_core.data.samples import Array, mapped_space
from ssada_core.errors import BagError, ConfigError, DataError
from ssada_core.labels import LabelSpace
from ssada_core.replay.settings import TruthSettings
from ssada_core.settings import nearest

BROKEN_LABEL = "label that cannot be used, left out"
_LABELS_KEPT = 8
"""Labels held while looking for a frame's own: some frames have none, and recorders swap neighbours."""
_LEAST_STAMP_NS = 10_000_000
"""Where all names are below this, they are frame numbers: no recording ends 10 ms after time began."""


@dataclass(frozen=True)
class Place:
    """Where a frame stands: its stamp, its number among its camera's frames, its height and width."""

    stamp_ns: int
    position: int
    size: tuple[int, int]


class Truth(Protocol):
    """Gives the label of a frame, if there is one."""

    def label(self, place: Place) -> Array | None:
        """Class ids and 255, uint8 of the frame's size, or None."""
        ...


class NoTruth:
    """There is none."""

    def label(self, place: Place) -> None:
        """See :class:`Truth`."""


class TopicTruth:
    """Labels of a topic, read alongside the frames and only as far as needed."""

    def __init__(self, bag: RecoveredBag, topic: str, label_space: LabelSpace, tolerance_ns: int) -> None:
        self._damage = bag.damage
        self._space = mapped_space(label_space)
        self._topic = topic
        self._tolerance = tolerance_ns
        # Damage of the file itself is counted where the frames are read.
        self._messages: Iterator[Any] = bag.decoded([topic], damage=Damage())
        self._kept: dict[int, Any] = {}

    def label(self, place: Place) -> Array | None:
        """See :class:`Truth`."""
        stamp_ns = place.stamp_ns
        while not self._is_settled(stamp_ns) and self._make_room(stamp_ns) and self._advance():
            pass
        best = min(self._kept, key=lambda kept: abs(kept - stamp_ns), default=None)
        if best is None or abs(best - stamp_ns) > self._tolerance:
            return None
        return _checked(self._read, self._kept.pop(best), place.size, f"{self._topic} at {best} ns", self._damage)

    def _read(self, message: Any, source: str) -> Array:  # noqa: ANN401
        return self._space.decode(read_label(message), source=source)

    def _is_settled(self, stamp_ns: int) -> bool:
        """Nothing nearer can come: the very stamp is there, or with a tolerance a label from behind the frame."""
        if stamp_ns in self._kept:
            return True
        return bool(self._tolerance) and any(stamp_ns < kept <= stamp_ns + self._tolerance for kept in self._kept)

    def _make_room(self, stamp_ns: int) -> bool:
        """Forget a label that is too old if there are too many; False if all may still be wanted."""
        if len(self._kept) < _LABELS_KEPT:
            return True
        oldest = min(self._kept)
        if oldest >= stamp_ns - self._tolerance:
            return False
        del self._kept[oldest]
        return True

    def _advance(self) -> bool:
        entry = next(self._messages, None)
        if entry is not None:
            self._kept[stamp_of(entry[1]) or entry[0].time_ns] = entry[1]
        return entry is not None


class FolderTruth:
    """Label images of a folder, named by stamp (``1700000000500000000.png``, or seconds with a point) or in order."""

    def __init__(self, folder: Path, label_space: LabelSpace, *, by: str, tolerance_ns: int, damage: Damage) -> None:
        """List the folder.

        Raises:
            DataError: if it has no images, or they are to be taken by stamp and one's name is no stamp.
        """
        self._space = label_space
        self._damage = damage
        self._tolerance = tolerance_ns
        paths = images_by_stem(folder)
        stamps = {stem: _stamp(stem) for stem in paths}
        wrong = next((stem for stem, stamp in stamps.items() if stamp is None), None)
        numbered = max((stamp or 0 for stamp in stamps.values()), default=0) < _LEAST_STAMP_NS
        self._by_stamp = by == "stamp" or (by == "auto" and wrong is None and not numbered)
        if self._by_stamp and wrong is not None:
            raise DataError(
                f"{paths[wrong]} is not named by a stamp: nanoseconds, or seconds with a point; or by order"
            )
        order = sorted(paths, key=(lambda stem: stamps[stem] or 0) if self._by_stamp else natural)
        self._paths = [paths[stem] for stem in order]
        self._stamps = [stamps[stem] or 0 for stem in order]

    def label(self, place: Place) -> Array | None:
        """See :class:`Truth`."""
        index = self._nearest(place.stamp_ns) if self._by_stamp else place.position
        if index is None or index >= len(self._paths):
            return None
        path = self._paths[index]
        return _checked(self._read, path, place.size, str(path), self._damage)

    def _read(self, path: Path, source: str) -> Array:
        return self._space.decode(decode_label(read_bytes(path)), source=source)

    def _nearest(self, stamp_ns: int) -> int | None:
        after = bisect_left(self._stamps, stamp_ns)
        near = [index for index in (after - 1, after) if 0 <= index < len(self._stamps)]
        best = min(near, key=lambda index: abs(self._stamps[index] - stamp_ns), default=None)
        return best if best is not None and abs(self._stamps[best] - stamp_ns) <= self._tolerance else None


def open_truths(
    bag: RecoveredBag, topics: list[str], label_space: LabelSpace, settings: TruthSettings
) -> dict[str, Truth]:
    """Ground truth for every camera's topic.

    Raises:
        BagError: if the bag has no such label topic.
        ConfigError: if a folder is asked for and not given, or stands for several cameras.
        DataError: if the folder cannot be used.
    """
    tolerance_ns = round(settings.tolerance_s * 1e9)
    if settings.source == "none":
        return dict.fromkeys(topics, NoTruth())
    if settings.source == "folder" or (settings.source == "auto" and settings.folder):
        if not settings.folder or len(topics) > 1:
            raise ConfigError("a folder of labels belongs to one camera: name the folder, and the topic of the camera")
        folder = Path(settings.folder)
        return {
            topics[0]: FolderTruth(folder, label_space, by=settings.by, tolerance_ns=tolerance_ns, damage=bag.damage)
        }
    found = [settings.topic] if settings.topic else bag.label_topics()
    if settings.topic and settings.topic not in bag.topics:
        close = nearest(settings.topic, sorted(bag.topics))
        raise BagError(f"bag {bag.path} has no label topic {settings.topic}{close}")
    if settings.source == "topic" and not found:
        raise BagError(f"bag {bag.path} has no label topic: name one, or a folder of labels")
    chosen = {topic: _label_topic(topic, topics, found) for topic in topics}
    return {
        topic: TopicTruth(bag, label, label_space, tolerance_ns) if label else NoTruth()
        for topic, label in chosen.items()
    }


def _label_topic(topic: str, topics: list[str], labels: list[str]) -> str | None:
    """The label topic beside a camera's: in the same namespace; with one camera the only one there is."""
    space = topic.removesuffix("/compressed").rpartition("/")[0]
    beside = [label for label in labels if label.rpartition("/")[0] == space]
    if beside:
        return beside[0]
    return labels[0] if len(topics) == 1 and len(labels) == 1 else None


def _checked(read: Any, what: Any, size: tuple[int, int], source: str, damage: Damage) -> Array | None:  # noqa: ANN401
    try:
        label: Array = read(what, source)
    except (DataError, *UNREADABLE) as error:
        damage.note(BROKEN_LABEL, f"{source}: {error}")
        return None
    if label.shape != size:
        damage.note(BROKEN_LABEL, f"{source} is {label.shape[1]}x{label.shape[0]}, its frame {size[1]}x{size[0]}")
        return None
    return label


def _stamp(stem: str) -> int | None:
    """Nanoseconds from a file's name, or None."""
    if stem.isdecimal():
        return int(stem)
    seconds, point, fraction = stem.partition(".")
    if point and seconds.isdecimal() and fraction.isdecimal():
        return int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    return None
