"""Flagged moments and domains in the frame pool: what is kept, for how long, and from which format on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

SECOND = 10**9


def scene(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def open_pool(root: Path, **changes) -> FramePool:
    return FramePool(root, PoolSettings(keep_free_share=0.0, **changes), label_space=CAMVID)


def test_a_clip_is_stored_whatever_the_rate_and_the_likeness_and_never_evicted(tmp_path: Path) -> None:
    with open_pool(tmp_path, max_frames=6) as pool:
        first = pool.add(scene(0), camera="front", stamp_ns=0).record
        clip = pool.flag(SECOND // 2)
        kept = [pool.keep(clip.id, scene(0), camera="front", stamp_ns=n * SECOND // 4).record for n in range(4)]
        assert kept[0].id == first.id, "a frame that is stored already becomes part of the clip"
        assert [record.clip for record in kept] == [1] * 4
        for number in range(1, 12):
            pool.add(scene(number), camera="front", stamp_ns=number * 10 * SECOND)
        assert {record.id for record in pool.frames(flagged=True)} == {record.id for record in kept}
        assert pool.count(states=["buffered"], flagged=False) == 2
        assert pool.clips() == [clip]
        # Clips that fill the pool leave no room, and say so.
        for number in range(4, 8):
            pool.keep(clip.id, scene(0), camera="front", stamp_ns=number * SECOND // 4)
        assert pool.add(scene(99), camera="front", stamp_ns=999 * SECOND).reason == "full"
        assert pool.verify() == []
    with open_pool(tmp_path) as pool:
        assert pool.flag(5).id == 2


def test_a_regression_case_is_no_random_audit_frame(tmp_path: Path) -> None:
    with open_pool(tmp_path, rate=1000) as pool:
        clip = pool.flag(0)
        case = pool.keep(clip.id, scene(1), camera="front", stamp_ns=0).record
        other = pool.add(scene(2), camera="front", stamp_ns=SECOND).record
        for record in pool.query([Choice(case.id, 0, True, ""), Choice(other.id, 0, True, "")]):
            pool.accept_label(record.query_id, np.zeros(record.size, np.uint8), "test")
        assert pool.stats().audit_labelled == 1
        assert pool.count(states=["labelled"], audit=True) == 2
        assert pool.count(states=["labelled"], audit=True, flagged=False) == 1
        assert [record.id for record in pool.frames(audit=True, flagged=True)] == [case.id]


def test_frames_belong_to_a_domain_which_may_be_told_late(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        for number in range(6):
            pool.add(scene(number), camera="front", stamp_ns=number * SECOND, domain="day")
        assert pool.name_domain("night", since_id=5) == 2
        assert [record.domain for record in pool.frames()] == ["day"] * 4 + ["night"] * 2
        assert pool.count(states=["buffered"], domain="night") == 2
        assert [record.id for record in pool.frames(domain="night")] == [5, 6]


def test_a_pool_of_the_first_format_is_taken_over_with_its_labels(tmp_path: Path) -> None:
    with open_pool(tmp_path) as pool:
        record = pool.add(scene(1), camera="front", stamp_ns=0).record
        (query,) = pool.query([Choice(record.id, 0, False, "")])
        pool.accept_label(query.query_id, np.zeros(query.size, np.uint8), "test")
    with sqlite3.connect(tmp_path / "pool.sqlite") as raw:  # as the release before left it
        raw.execute("DROP INDEX frames_by_clip")
        for column in ("domain", "clip"):
            raw.execute(f"ALTER TABLE frames DROP COLUMN {column}")
        raw.execute("DROP TABLE clips")
        raw.execute("DROP TABLE missing")
        raw.execute("PRAGMA user_version=1")
    with open_pool(tmp_path) as pool:
        (found,) = pool.frames()
        assert (found.state, found.domain, found.clip) == ("labelled", "", None)
        assert pool.label(found) is not None
        assert pool.keep(pool.flag(0).id, None, jpeg=pool.image_bytes(found), camera="front", stamp_ns=0).record.clip
    with open_pool(tmp_path) as pool:
        assert pool.verify() == []
