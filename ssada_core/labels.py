"""Label spaces: which classes there are, their colours, and the map from a data set's ids.

A *label* is a uint8 array H×W of class ids; :data:`IGNORE` marks pixels that no loss and no metric
counts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from ssada_core import label_tables
from ssada_core.errors import ConfigError, LabelError
from ssada_core.settings import nearest

IGNORE = 255
"""The id of pixels that are not labelled (METHOD, shapes)."""

Color = label_tables.Color


@dataclass(frozen=True)
class LabelSpace:
    """Names, colours and ids of the classes of a data set.

    Attributes:
        name: how configurations and manifests refer to it.
        classes: class names; the position is the class id.
        colors: one RGB colour per class.
        id_map: raw id in files → class id, or :data:`IGNORE`; empty means raw ids are class ids. Ids that are
            neither mapped nor a class id become :data:`IGNORE`.
        ignored_ids: raw ids that mean "unlabelled" and are not an error.
        safety: classes that the gate watches with their own margin.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    id_map: Mapping[int, int] = field(default_factory=dict)
    ignored_ids: frozenset[int] = frozenset({IGNORE})
    safety: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fault = next(self._faults(), "")
        if fault:
            raise ConfigError(f"label space '{self.name}': {fault}")

    def _faults(self) -> Iterator[str]:
        """What labels could not be read with, or would be read wrongly, each with its remedy."""
        count, names = len(self.classes), list(self.classes)
        if not 0 < count <= IGNORE:
            yield f"{count} classes: give 1 to {IGNORE}, as ids are 8-bit and {IGNORE} is unlabelled"
        if count != len(self.colors):
            yield f"{count} classes but {len(self.colors)} colours: give one each"
        for name in names:
            if names.count(name) > 1:
                yield f"two classes are called '{name}': give each a name of its own"
        for color in self.colors:
            if not all(0 <= value <= 255 for value in color):
                yield f"colour {list(color)}: give red, green and blue from 0 to 255"
        for raw in (*self.id_map, *self.ignored_ids):
            if not 0 <= raw <= 255:
                yield f"id {raw} cannot be in a file: labels are 8-bit images, give ids from 0 to 255"
        for raw, index in self.id_map.items():
            if index != IGNORE and not 0 <= index < count:
                yield f"id_map takes {raw} to class {index}: classes count from 0, give 0 to {count - 1} or {IGNORE}"
        for name in self.safety:
            if name not in names:
                yield f"safety class '{name}' is none of its classes{nearest(name, names)}"

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored id."""
        return len(self.classes)

    @property
    def known_ids(self) -> frozenset[int]:
        """Raw ids that a file may hold: those of classes, and those that mean "unlabelled"."""
        return frozenset(self.id_map or range(self.num_classes)) | self.ignored_ids

    def index(self, name: str) -> int:
        """Class id of ``name``.

        Raises:
            ConfigError: if there is no such class, with the nearest one.
        """
        try:
            return self.classes.index(name)
        except ValueError:
            raise ConfigError(
                f"label space '{self.name}' has no class '{name}'{nearest(name, list(self.classes))}"
            ) from None

    def palette_bgr(self) -> NDArray[np.uint8]:
        """Look-up table uint8 256×3 (BGR): class id → colour; ids without a class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: self.num_classes] = np.asarray(self.colors, np.uint8)[:, ::-1]
        return table

    def decode(self, raw: NDArray[np.uint8], *, source: str) -> NDArray[np.uint8]:
        """Map a file's raw ids (uint8 H×W) to class ids and :data:`IGNORE`.

        Raises:
            LabelError: if ``raw`` is not uint8 H×W or holds an id that this space does not know.
        """
        if raw.ndim != 2 or raw.dtype != np.uint8:
            raise LabelError(
                f"{source}: a label is a single-channel 8-bit image, got shape {raw.shape} {raw.dtype}: "
                "save class ids, not colours"
            )
        known, table = self._tables()
        used = np.bincount(raw.ravel(), minlength=256) > 0
        wrong = np.flatnonzero(used & ~known)
        if wrong.size:
            raise LabelError(
                f"{source}: class id {int(wrong[0])} is not in label space '{self.name}' "
                f"(0-{self.num_classes - 1}, {IGNORE} = unlabelled): relabel it, or choose its own label space"
            )
        return table[raw]

    def _tables(self) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        table = np.full(256, IGNORE, np.uint8)
        known = np.zeros(256, np.bool_)
        mapping = self.id_map or {index: index for index in range(self.num_classes)}
        for raw, index in mapping.items():
            table[raw], known[raw] = index, True
        known[list(self.ignored_ids)] = True
        if self.id_map:  # a mapped space deliberately drops the other raw ids
            known[:] = True
        return known, table

    def to_json(self) -> str:
        """JSON that :meth:`from_dict` reads, published on ``~/label_space`` and kept in manifests."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON and YAML."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "colors": [list(color) for color in self.colors],
            "ignore": IGNORE,
            "ignored_ids": sorted(self.ignored_ids),
            "id_map": {str(raw): index for raw, index in self.id_map.items()},
            "safety": list(self.safety),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object], *, source: str) -> LabelSpace:
        """Read what :meth:`to_dict` wrote, or a user's YAML (``classes`` and ``colors`` are required).

        Raises:
            ConfigError: if a key is missing, unknown or malformed, or no label can be read with the values.
        """
        allowed = {"name", "classes", "colors", "ignore", "ignored_ids", "id_map", "safety"}
        for key in values:
            if key not in allowed:
                raise ConfigError(f"{source}: unknown key '{key}' in a label space{nearest(key, sorted(allowed))}")
        if values.get("ignore", IGNORE) != IGNORE:
            raise ConfigError(
                f"{source}: 'ignore' is {values['ignore']}, but unlabelled is always {IGNORE}: leave it out, and list "
                "other ids that mean unlabelled as 'ignored_ids'"
            )
        try:
            return cls(
                name=str(values.get("name", "custom")),
                classes=tuple(str(name) for name in values["classes"]),  # type: ignore[attr-defined]
                colors=tuple((int(r), int(g), int(b)) for r, g, b in values["colors"]),  # type: ignore[attr-defined]
                id_map={int(raw): int(index) for raw, index in dict(values.get("id_map") or {}).items()},  # type: ignore[call-overload]
                ignored_ids=frozenset(int(raw) for raw in values.get("ignored_ids") or [IGNORE]),  # type: ignore[attr-defined]
                safety=tuple(str(name) for name in values.get("safety") or ()),  # type: ignore[attr-defined]
            )
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{source}: a label space needs 'classes' (names) and 'colors' ([r, g, b] each): {error}"
            ) from error


_ROAD_USERS = ("road", "sidewalk", "person")


def _cityscapes(name: str, keep: Collection[int]) -> LabelSpace:
    """The Cityscapes classes whose raw ids are in ``keep``, in Cityscapes' order."""
    rows = [row for row in label_tables.CITYSCAPES if row[1] in keep]
    return LabelSpace(
        name=name,
        classes=tuple(row[0] for row in rows),
        colors=tuple(row[2] for row in rows),
        id_map={row[1]: index for index, row in enumerate(rows)},
        ignored_ids=label_tables.CITYSCAPES_VOID | {row[1] for row in label_tables.CITYSCAPES if row not in rows},
        safety=_ROAD_USERS,
    )


def _synthia() -> LabelSpace:
    """The 16 classes that SYNTHIA and Cityscapes are compared on; ids of SYNTHIA's own files."""
    rows = [row for row in label_tables.CITYSCAPES if row[0] not in label_tables.SYNTHIA_WITHOUT]
    ids = label_tables.SYNTHIA_IDS
    return LabelSpace(
        name="synthia",
        classes=tuple(row[0] for row in rows),
        colors=tuple(row[2] for row in rows),
        id_map={ids[row[0]]: index for index, row in enumerate(rows)},
        ignored_ids=label_tables.SYNTHIA_VOID | {ids[name] for name in label_tables.SYNTHIA_WITHOUT},
        safety=_ROAD_USERS,
    )


CAMVID = LabelSpace(
    name="camvid",
    classes=tuple(name for name, _ in label_tables.CAMVID),
    colors=tuple(color for _, color in label_tables.CAMVID),
    ignored_ids=frozenset({11, IGNORE}),
    safety=("road", "sidewalk", "pedestrian"),
)
"""CamVid's 11 classes in the SegNet tutorial's order; 11 is unlabelled. The simulated drive uses it too."""

CITYSCAPES = _cityscapes("cityscapes", [row[1] for row in label_tables.CITYSCAPES])
"""Cityscapes' 19 classes; files hold the ids of ``*_labelIds.png``. GTA5's and ACDC's are the same."""

CROSSCITY = _cityscapes("crosscity", label_tables.CROSSCITY_IDS)
"""The 13 classes of the cross-city data; files hold Cityscapes ids."""

SYNTHIA = _synthia()
"""SYNTHIA's 16 classes; files hold SYNTHIA's ids."""

BEV = LabelSpace(
    name="bev",
    classes=tuple(name for name, _ in label_tables.BEV),
    colors=tuple(color for _, color in label_tables.BEV),
)
"""The 7 classes of SS-ADA's bird's-eye parking data."""

LABEL_SPACES: dict[str, LabelSpace] = {
    space.name: space
    for space in (
        CAMVID,
        CITYSCAPES,
        replace(CITYSCAPES, name="gta5"),
        replace(CITYSCAPES, name="acdc"),
        SYNTHIA,
        CROSSCITY,
        BEV,
    )
}
"""Built-in label spaces by name (METHOD §10)."""


def load_label_space(reference: str) -> LabelSpace:
    """A built-in label space by name, or one described in a YAML file.

    Raises:
        ConfigError: if neither a built-in name nor a readable file.
    """
    if reference in LABEL_SPACES:
        return LABEL_SPACES[reference]
    path = Path(reference)
    if path.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"unknown label space '{reference}'{nearest(reference, list(LABEL_SPACES))}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, dates that are none
        raise ConfigError(f"label space file {path}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"label space file {path}: expected a mapping with 'classes' and 'colors'")
    return LabelSpace.from_dict(values, source=str(path))
