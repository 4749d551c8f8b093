"""Wrong labels: nothing that the gate lets through lowers the mIoU on exact labels by more than its margin."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from poison import CAMVID, CASES, LENIENT, SIZE, run, wrong

from ssada_core.data.simulated_drive import SimulatedDrive

ROUNDS = 5
TRAINED_ON = tuple(case for case in CASES if not case[1])


def test_wrong_labels_are_wrong_and_fit_the_frame() -> None:
    label = SimulatedDrive(seed=0, size=SIZE, rate=1.0).frame(0, "night")[1]
    for kind, _ in TRAINED_ON[1:]:
        spoilt = wrong(label, kind, 1)
        assert spoilt.shape == label.shape
        assert spoilt.dtype == label.dtype
        assert set(spoilt.ravel()) <= {*range(CAMVID.num_classes), 255}
        changed = (spoilt != label)[label != 255].mean()
        assert changed > (0.2 if kind == "flipped" else 0.3), kind
        assert (wrong(label, kind, 1) == spoilt).all()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_rounds_on_wrong_labels_cost_nothing_and_on_true_ones_gain(tmp_path: Path) -> None:
    margin = LENIENT.rules().domain_margin
    cases = {case.kind: case for case in run(tmp_path, ROUNDS, TRAINED_ON)}
    for case in cases.values():
        assert len(case.verdicts) == ROUNDS
        assert all(change >= -margin for change in case.changes), case
        assert case.first["night"] >= -margin
    assert cases["true"].verdicts.count("promote") >= 1, "a gate that lets nothing through shows nothing"
    assert cases["true"].first["night"] > 0
