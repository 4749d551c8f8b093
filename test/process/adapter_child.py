"""A process that owns an adapter, drives, and answers every query, until somebody kills it. Says what was kept."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from adaptation_fixtures import DRIVE, SECOND, TRAINING, adaptation_settings

from ssada_core.adaptation.adapter import Adapter


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Annotator:
    """Answers with the simulated drive's own labels."""

    def __init__(self) -> None:
        self.open: list = []

    def on_queries(self, records) -> None:
        self.open += records

    def on_label(self, result) -> None:
        pass

    def on_promoted(self, version, reason) -> None:
        pass


def main(root: Path) -> None:
    annotator = Annotator()
    training = TRAINING.model_copy(update={"iterations": 40, "checkpoint_every": 1})
    adapter = Adapter(adaptation_settings(root, training=training), annotator, say)
    index = 0
    while True:
        if index < 10:
            adapter.offer(DRIVE.frame(index, "night")[0], jpeg=None, camera="front", stamp_ns=index * SECOND)
            index += 1
        adapter.tick(time.monotonic())
        while annotator.open:
            record = annotator.open.pop(0)
            result = adapter.submit(record.query_id, DRIVE.frame(record.stamp_ns // SECOND, "night")[1], "child")
            assert result.status == "accepted", result.why
            say(f"label {record.query_id} {record.stamp_ns // SECOND}")
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
