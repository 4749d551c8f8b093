"""A process that fills a pool and answers its own questions until somebody kills it. Says what was acknowledged."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ssada_core.annotation.submit import submit
from ssada_core.labels import CAMVID
from ssada_core.store.pool import Choice, FramePool, PoolSettings

SIZE = (96, 128)


def frame(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def label(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 11, SIZE, dtype=np.uint8)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(root: str, first: int) -> None:
    settings = PoolSettings(keep_free_share=0.0, max_frames=60)
    with FramePool(root, settings, label_space=CAMVID) as pool:
        say("open")
        index = first
        while True:
            record = pool.add(frame(index), camera="front", stamp_ns=index * 10**9).record
            if record is not None and index % 2 == 0:
                (query,) = pool.query([Choice(record.id, 0.0, index % 8 == 0, "")])
                # Every third label is corrected at once: the correction is what counts.
                for seed in [index, index + 1] if index % 6 == 0 else [index]:
                    result = submit(pool, str(query.query_id), label(seed), "child")
                    assert result.status == "accepted", result.why
                    say(f"label {query.query_id} {seed}")
                if index % 10 == 0:
                    say(f"purging {query.query_id}")
                    pool.purge([query.id])
            index += 1


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
