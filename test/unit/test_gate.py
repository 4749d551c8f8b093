from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssada_core.adaptation.gate import Decision, GateSettings, Measurements, ModelMeasurement, decide
from ssada_core.errors import ConfigError, WorkerError
from ssada_core.labels import LabelSpace
from ssada_core.settings import parse_settings

SPACE = LabelSpace(
    name="four",
    classes=("ground", "road", "wall", "person"),
    colors=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
    safety=("road", "person"),
)
SHARES = np.array([0.3, 0.45, 0.2, 0.05])
PIXELS = 20_000
SECOND = 1_000_000_000


def matrices(rng, frames, accuracy, noise=0.03, scene=None):
    """Confusion matrices of frames: ``accuracy`` per class, with a part of the error that the scene brings."""
    hard = np.zeros(frames) if scene is None else scene
    rates = np.clip(accuracy + hard[:, None] + rng.normal(0, noise, (frames, 4)), 0.0, 1.0)
    shares = np.repeat(((1 - rates) / 3)[..., None], 4, axis=2)
    shares[:, range(4), range(4)] = rates
    return rng.multinomial(rng.multinomial(PIXELS, SHARES, frames), shares).astype(np.int64)


def model(audit, source, *, milliseconds=40.0, finite=True):
    latencies = np.full(20, milliseconds / 1e3)
    return ModelMeasurement(audit, source, audit.sum(axis=(0, 1)), latencies, finite)


def measure(frames=12, before=0.7, after=0.85, *, gap_s=30.0, source=(0.9, 0.9), seed=0, noise=0.03, **changes):
    """A round's measurements with known truth: accuracy before and after, scalar or per class."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(0, 0.05, frames)
    champion = matrices(rng, frames, np.broadcast_to(before, 4), noise, scene)
    challenger = matrices(rng, frames, np.broadcast_to(after, 4), noise, scene)
    pack = [matrices(rng, 30, np.broadcast_to(rate, 4), noise) for rate in source]
    old = model(champion, pack[0])
    stamps = (np.arange(frames) * gap_s * SECOND).astype(np.int64)
    return dataclasses.replace(Measurements(stamps, old, model(challenger, pack[1]), old), **changes)


def judge(measured, policy="strict", **numbers) -> Decision:
    return decide(measured, GateSettings(policy=policy, **numbers), SPACE)


def failed(decision):
    return {check.name for check in decision.checks if not check.passed}


def challenger(measured, **changes):
    return dataclasses.replace(measured, challenger=dataclasses.replace(measured.challenger, **changes))


def test_a_clear_gain_is_promoted_with_its_figures_in_words():
    decision = judge(measure())
    assert decision.verdict == "promote"
    assert decision.words.startswith("Promoted. Target mIoU")
    assert f"{decision.gain:+.1f} points" in decision.words
    assert "12 audit frames in 12 stretches" in decision.words
    low, high = decision.gain_interval
    assert 0.5 < low < decision.gain < high
    assert decision.probability == 1 - 0.5**12
    assert not failed(decision)
    assert decision.frames_needed == 0


def test_strict_is_undecided_on_three_frames_and_says_how_many_are_missing():
    decision = judge(measure(frames=3))
    assert decision.verdict == "undecided"
    assert decision.frames_needed == 5
    assert "needs 5 more" in decision.words
    assert "3 audit frames in 3 stretches" in decision.words


def test_lenient_promotes_on_three_clear_frames_and_claims_no_more_than_three_frames_show():
    decision = judge(measure(frames=3), "lenient")
    assert decision.verdict == "promote"
    assert decision.probability == 0.875
    assert "probability of a gain 0.87, asked 0.87" in decision.words  # 0.80 for two looks
    assert judge(measure(frames=2), "lenient").verdict == "undecided"


@pytest.mark.parametrize(("policy", "frames", "error"), [("strict", 8, 0.1), ("lenient", 4, 0.2)])
def test_two_looks_at_equally_good_models_promote_no_more_than_was_asked(policy, frames, error):
    trials, promoted = 2000, 0
    open_to_all = {"safety_margin": 100, "domain_margin": 100, "min_gain": 0, "bootstrap_samples": 200}
    for seed in range(trials):
        whole = measure(frames=frames + 16, before=0.7, after=0.7, seed=seed, source=(0.9, 0.9))
        decision = judge(first(whole, frames), policy, **open_to_all)
        if decision.verdict == "undecided" and decision.frames_needed <= 16:
            decision = judge(first(whole, frames + decision.frames_needed), policy, **open_to_all)
        promoted += decision.verdict == "promote"
    assert 0 < promoted / trials <= error + 2 * (error * (1 - error) / trials) ** 0.5


def first(measured, count):
    """The round as it was when only ``count`` audit frames were labelled."""
    models = {
        name: dataclasses.replace(one, audit=one.audit[:count])
        for name in ("champion", "challenger", "first")
        if (one := getattr(measured, name)) is not None
    }
    return dataclasses.replace(measured, stamps_ns=measured.stamps_ns[:count], **models)


def test_near_copies_are_one_piece_of_evidence():
    decision = judge(measure(frames=20, gap_s=0.2))
    assert decision.verdict == "undecided"
    assert decision.stretches == 1
    assert decision.gain_interval is None
    assert decision.frames_needed == 3  # four stretches that all gain are the fewest that can show 0.9
    assert judge(measure(frames=20, gap_s=30.0)).verdict == "promote"


def test_manual_asks_for_the_same_evidence_and_then_waits():
    for frames, after in ((12, 0.85), (3, 0.85), (12, 0.6)):
        measured = measure(frames=frames, after=after)
        strict, manual = judge(measured), judge(measured, "manual")
        assert manual.verdict == {"promote": "wait_for_human"}.get(strict.verdict, strict.verdict)
        assert manual.rules == strict.rules
        assert manual.probability == strict.probability


@pytest.mark.parametrize("policy", ["strict", "lenient", "manual"])
def test_a_challenger_trained_on_shuffled_labels_is_refused(policy):
    shuffled = measure(after=0.25, source=(0.9, 0.25))
    decision = judge(shuffled, policy)
    assert decision.verdict == "refuse"
    assert {"source", "target", "safety:road", "safety:person"} <= failed(decision)
    assert judge(measure(after=0.25, source=(0.9, 0.9)), policy).verdict == "refuse"


def test_a_clear_drop_needs_less_evidence_than_a_promotion():
    assert judge(measure(frames=4, after=0.4)).verdict == "refuse"
    assert judge(measure(frames=3, after=0.4), "lenient").verdict == "refuse"
    assert judge(measure(frames=3, after=0.4)).verdict == "undecided"


def test_no_gain_is_refused_and_an_unsure_gain_says_how_many_frames_would_show_it():
    decision = judge(measure(frames=40, before=0.8, after=0.8, seed=2))
    assert decision.verdict == "refuse"
    assert "no gain to speak of" in decision.words
    unsure = judge(measure(frames=8, before=0.80, after=0.815, noise=0.08, seed=8), safety_margin=50)
    assert unsure.verdict == "undecided"
    assert unsure.frames_needed > 0
    assert f"about {unsure.frames_needed} more audit frames" in unsure.words


def test_a_safety_class_may_not_pay_for_the_others():
    before, after = np.array([0.85, 0.85, 0.85, 0.9]), np.array([0.97, 0.97, 0.97, 0.45])
    decision = judge(measure(before=before, after=after))
    assert decision.gain > 5
    assert decision.verdict == "refuse"
    assert failed(decision) == {"safety:person"}
    (check,) = [check for check in decision.checks if not check.passed]
    assert "IoU of 'person' falls" in decision.words
    assert f"{check.figures['challenger']:.1f} %" in decision.words
    assert "margin 3.0" in decision.words
    # Too few labelled pixels to judge by: promoted, and said.
    few = judge(measure(before=before, after=after), safety_min_pixels=10**6)
    assert few.verdict == "promote"
    assert "IoU of 'person' is not judged" in few.words


def test_small_losses_cannot_add_up_against_the_first_model():
    measured = measure(before=0.80, after=0.88, source=(0.86, 0.85), noise=0.001)
    first = model(measured.champion.audit, matrices(np.random.default_rng(7), 30, np.full(4, 0.93), 0.001))
    drifted = dataclasses.replace(measured, first=first)
    assert judge(measured).verdict == "promote"
    decision = judge(drifted)
    assert decision.verdict == "refuse"
    assert failed(decision) == {"source", "safety:road@source pack", "safety:person@source pack"}
    assert "first model's" in decision.words
    assert failed(judge(drifted, source_margin=30)) == {"safety:road@source pack", "safety:person@source pack"}
    assert judge(drifted, source_margin=30, source_safety_margin=30).verdict == "promote"
    own = judge(drifted, source_margin=30, source_safety_margin=30, safety_margins=["road=1"])
    assert failed(own) == {"safety:road@source pack"}, "a class's own margin holds on every road"


def test_a_target_worse_than_with_the_first_model_is_refused():
    measured = measure(before=0.6, after=0.75, noise=0.001)
    first = model(matrices(np.random.default_rng(7), 12, np.full(4, 0.9), 0.001), measured.champion.source)
    decision = judge(dataclasses.replace(measured, first=first))
    assert decision.gain > 5
    assert decision.verdict == "refuse"
    assert "target" in failed(decision)


def test_an_earlier_domain_may_not_fall_and_does_not_count_as_gain():
    night, day = measure(frames=10, before=0.6, after=0.85, seed=1), measure(frames=10, before=0.9, after=0.8, seed=2)

    def joined(name):
        audit = np.concatenate([getattr(night, name).audit, getattr(day, name).audit])
        return model(audit, getattr(night, name).source)

    both = Measurements(
        stamps_ns=np.concatenate([night.stamps_ns, night.stamps_ns - 10**15]),
        champion=joined("champion"),
        challenger=joined("challenger"),
        first=joined("champion"),
        domains=("night",) * 10 + ("day",) * 10,
        target="night",
    )
    decision = judge(both)
    assert decision.verdict == "refuse"
    assert {"domain:day", "safety:road@day"} <= failed(decision)
    assert "mIoU on 10 day audit frames falls" in decision.words
    assert decision.audit_frames == 10
    assert decision.gain == pytest.approx(judge(night).gain)


def test_source_free_rounds_are_judged_by_agreement_or_say_that_nothing_was_measured():
    measured = measure()
    none = np.zeros((0, 4, 4), np.int64)
    free = dataclasses.replace(
        measured,
        **{
            name: dataclasses.replace(getattr(measured, name), source=none)
            for name in ("champion", "challenger", "first")
        },
    )
    decision = judge(free)
    assert decision.verdict == "promote"
    assert "source-free round: forgetting of the source was not measured" in decision.words
    assert judge(dataclasses.replace(free, agreement=0.95)).verdict == "promote"
    refused = judge(dataclasses.replace(free, agreement=0.6))
    assert refused.verdict == "refuse"
    assert "60.0 % of the first model's confident pixels" in refused.words


def test_numbers_that_are_not_finite_and_slowness_are_refused_on_any_evidence():
    for frames in (0, 3, 12):
        measured = measure(frames=frames)
        decision = judge(challenger(measured, finite=False))
        assert decision.verdict == "refuse"
        assert "not finite" in decision.words
        slow = judge(challenger(measured, latencies_s=np.full(20, 0.0504)))
        assert slow.verdict == "refuse"
        assert "50.4 ms is 1.26 times the champion's 40.0 ms (more than 1.25)" in slow.words
    assert judge(challenger(measure(), latencies_s=np.full(20, 0.05))).verdict == "promote"
    assert "latency was not measured" in judge(challenger(measure(), latencies_s=np.empty(0))).words


def test_a_collapsed_histogram_is_refused():
    measured = measure()
    total = int(measured.challenger.histogram.sum())
    swallowed = np.array([0.02, 0.95, 0.02, 0.01]) * total
    decision = judge(challenger(measured, histogram=swallowed.astype(np.int64)))
    assert decision.verdict == "refuse"
    assert failed(decision) == {"swallowed"}
    assert "'road' takes 95.0 % of all predicted pixels" in decision.words
    vanished = np.array([0.35, 0.45, 0.2, 0.0]) * total
    decision = judge(challenger(measured, histogram=vanished.astype(np.int64)))
    assert decision.verdict == "refuse"
    assert failed(decision) == {"vanished"}
    assert "'person' (5.0 % of the labels, 0.00 % now)" in decision.words
    # What the champion does not find either cannot vanish; what truly fills the frame does not swallow it.
    blind = dataclasses.replace(measured.champion, histogram=vanished.astype(np.int64))
    both = dataclasses.replace(challenger(measured, histogram=vanished.astype(np.int64)), champion=blind, first=blind)
    assert judge(both).verdict == "promote"


def test_a_class_that_truly_fills_the_frame_is_no_collapse():
    audit = np.zeros((12, 4, 4), np.int64)
    audit[:, 1, 1], audit[:, 0, 0], audit[:, 2, 2], audit[:, 3, 3] = 18_600, 400, 500, 250
    audit[:, 0, 1] = 250
    better = audit.copy()
    better[:, 0, 1], better[:, 0, 0] = 50, 600
    source = audit[:5]
    old = model(audit, source)
    measured = Measurements(np.arange(12) * 30 * SECOND, old, model(better, source), old)
    assert judge(measured).verdict == "promote"


def test_without_audit_frames_nothing_is_decided():
    decision = judge(measure(frames=0))
    assert decision.verdict == "undecided"
    assert decision.frames_needed == 8
    assert decision.gain is None
    assert "No audit frame of the target is labelled yet" in decision.words
    unlabelled = measure(frames=10)
    empty = dataclasses.replace(unlabelled.champion, audit=np.zeros((10, 4, 4), np.int64))
    decision = judge(dataclasses.replace(unlabelled, champion=empty, challenger=empty, first=empty))
    assert decision.verdict != "promote"
    json.dumps(decision.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(("policy", "nominal"), [("strict", 0.1), ("lenient", 0.2)])
@pytest.mark.parametrize("frames", [4, 8, 20])
def test_a_challenger_that_is_no_better_is_promoted_no_more_often_than_the_nominal_error(policy, nominal, frames):
    trials, promoted = 2000, 0
    for seed in range(trials):
        # No difference in truth is the hardest case: exactly on the bound (min_gain 0).
        measured = measure(frames=frames, before=0.75, after=0.75, noise=0.06, seed=1000 + seed)
        numbers = {"min_gain": 0, "min_audit_frames": 2, "safety_margin": 100, "domain_margin": 100}
        promoted += judge(measured, policy, bootstrap_samples=400, **numbers).verdict == "promote"
    # Two standard errors of a rate over 300 trials on top of the nominal one.
    assert promoted / trials <= nominal + 2 * math.sqrt(nominal * (1 - nominal) / trials)


def near_copies(seed, stretches=8, copies=5):
    """No true gain; the frames of a stretch, one second apart, share its luck."""
    rng = np.random.default_rng(seed)
    stamps = (np.arange(stretches)[:, None] * 60 + np.arange(copies)[None]).ravel() * SECOND
    luck = [np.repeat(rng.normal(0, 0.06, stretches), copies) for _ in range(2)]
    old, new = (model(matrices(rng, stamps.size, np.full(4, 0.75), 0.005, scene), none4()) for scene in luck)
    return Measurements(stamps.astype(np.int64), old, new, old)


def none4():
    return np.zeros((0, 4, 4), np.int64)


def test_near_copies_do_not_raise_the_error_because_whole_stretches_are_resampled():
    trials, free = 150, {"min_gain": 0, "safety_margin": 100, "domain_margin": 100, "bootstrap_samples": 300}
    rounds = [near_copies(seed) for seed in range(trials)]
    by_stretch = sum(judge(measured, **free).verdict == "promote" for measured in rounds) / trials
    by_frame = sum(judge(measured, **free, stretch_s=0.5).verdict == "promote" for measured in rounds) / trials
    assert by_stretch <= 0.1 + 2 * math.sqrt(0.09 / trials)
    assert by_frame > 0.2  # what resampling single frames would have promoted


def test_a_true_drop_is_practically_never_promoted_and_a_true_gain_nearly_always():
    drop = [judge(measure(8, 0.75, 0.73, noise=0.04, seed=s), "lenient", bootstrap_samples=300) for s in range(100)]
    assert sum(decision.verdict == "promote" for decision in drop) <= 5
    gain = [judge(measure(8, 0.75, 0.85, noise=0.04, seed=s), bootstrap_samples=300) for s in range(100)]
    assert sum(decision.verdict == "promote" for decision in gain) >= 96
    # What is refused all the same is a class or the source that fell by chance, and said so.
    assert all(failed(decision) for decision in gain if decision.verdict == "refuse")


def test_the_interval_covers_the_true_gain_about_as_often_as_it_says():
    truth = judge(measure(2000, 0.75, 0.80, noise=0.06, seed=1)).gain
    inside = 0
    for seed in range(200):
        low, high = judge(measure(10, 0.75, 0.80, noise=0.06, seed=seed), bootstrap_samples=400).gain_interval
        inside += low <= truth <= high
    assert 0.84 <= inside / 200 <= 0.98


@given(
    st.integers(0, 9),
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.sampled_from(["strict", "manual", "lenient"]),
    st.integers(0, 50),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_decision_is_json_says_why_and_never_promotes_past_a_failed_check(
    frames, before, after, policy, seed, ok
):
    measured = challenger(measure(frames, before, after, seed=seed), finite=ok)
    decision = judge(measured, policy, bootstrap_samples=200)
    again = Decision.model_validate_json(json.dumps(decision.model_dump(mode="json"), allow_nan=False))
    assert again == decision
    assert judge(measured, policy, bootstrap_samples=200) == decision
    if decision.verdict in ("promote", "wait_for_human"):
        assert not failed(decision)
        assert decision.probability >= decision.rules["probability"]
        assert decision.audit_frames >= decision.rules["min_audit_frames"]
        assert (decision.verdict == "wait_for_human") == (policy == "manual")
    if decision.verdict == "refuse":
        assert decision.words.startswith("Refused: ")
        assert all(check.words in decision.words for check in decision.checks if not check.passed)
    assert (decision.frames_needed > 0) == (decision.verdict == "undecided")


def test_measurements_survive_the_disk(tmp_path):
    measured = measure(frames=4, domains=("day", "night", "night", "day"), target="night", agreement=0.9)
    measured = with_cases(measured, 0.6, 0.9)
    path = tmp_path / "measurements.npz"
    measured.save(path)
    loaded = Measurements.load(path)
    assert (loaded.domains, loaded.target, loaded.agreement) == (measured.domains, "night", 0.9)
    assert loaded.case_ids == ("a", "b")
    np.testing.assert_array_equal(loaded.stamps_ns, measured.stamps_ns)
    for name in ("champion", "challenger", "first"):
        for field in dataclasses.fields(ModelMeasurement):
            one, other = getattr(getattr(loaded, name), field.name), getattr(getattr(measured, name), field.name)
            np.testing.assert_array_equal(one, other)
            assert type(one) is type(other)
    assert decide(loaded, GateSettings(), SPACE) == decide(measured, GateSettings(), SPACE)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a zip", whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(WorkerError, match="not a readable measurements file"):
            Measurements.load(path)
    with pytest.raises(WorkerError, match=r"missing\.npz"):
        Measurements.load(tmp_path / "missing.npz")


def test_no_flipped_byte_of_measurements_is_more_than_an_unreadable_file(tmp_path):
    path = tmp_path / "measurements.npz"
    measure(frames=3).save(path)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            Measurements.load(path)
        except WorkerError:
            refused += 1
    assert refused > len(whole) // 3


def test_measurements_that_do_not_fit_each_other_are_refused():
    measured = measure(frames=4)
    with pytest.raises(WorkerError, match="3 domains for 4 audit frames"):
        dataclasses.replace(measured, domains=("a", "b", "c"))
    with pytest.raises(WorkerError, match=r"audit of the challenger has shape \(3, 4, 4\), expected \(4, 4, 4\)"):
        challenger(measured, audit=measured.challenger.audit[:3])
    other = LabelSpace(name="two", classes=("a", "b"), colors=((0, 0, 0), (1, 1, 1)))
    with pytest.raises(WorkerError, match="4 classes but label space 'two' 2"):
        decide(measured, GateSettings(), other)


def test_policies_bring_their_numbers_and_settings_override_them():
    assert GateSettings().rules().probability == 0.9
    assert GateSettings(policy="lenient").rules().min_audit_frames == 2
    changed = GateSettings(policy="lenient", min_gain=0, source_margin=4.5).rules()
    assert (changed.min_gain, changed.source_margin, changed.probability) == (0, 4.5, 0.8)
    assert GateSettings().rules().min_stretches == 4
    assert GateSettings(policy="lenient").rules().min_stretches == 3
    with pytest.raises(ConfigError, match="a probability below"):
        parse_settings(GateSettings, {"probability": 0.3}, source="test")
    with pytest.raises(ConfigError, match="did you mean 'min_gain'"):
        parse_settings(GateSettings, {"mingain": 1}, source="test")


def with_cases(measured, champion, challenger, first=0.5):
    """Two regression cases, on which the models are this accurate."""
    changes = {
        name: dataclasses.replace(
            getattr(measured, name), cases=matrices(np.random.default_rng(4), 2, np.full(4, rate), 0.001)
        )
        for name, rate in (("champion", champion), ("challenger", challenger), ("first", first))
    }
    return dataclasses.replace(measured, case_ids=("a", "b"), **changes)


def test_a_regression_case_is_passed_or_nothing_is_promoted():
    measured = measure()
    fixed = judge(with_cases(measured, 0.6, 0.9))
    assert fixed.verdict == "promote"
    assert fixed.cases["a"]["challenger"] > fixed.cases["a"]["champion"]
    broken = judge(with_cases(measured, 0.9, 0.8))
    assert broken.verdict == "refuse"
    assert failed(broken) == {"case:a", "case:b"}
    assert "mIoU on the flagged frame a falls from the champion's" in broken.words
    assert judge(with_cases(measured, 0.9, 0.8), case_margin=30).verdict == "promote"
    # What a promoted model once reached stays the bar, whatever the champion of today does.
    level = with_cases(measured, 0.7, 0.7)
    assert judge(level).verdict == "promote"
    barred = decide(level, GateSettings(), SPACE, {"b": 90.0})
    assert failed(barred) == {"case:b"}
    assert "from the best model's 90.0" in barred.words


def test_a_class_may_have_a_margin_of_its_own():
    before, after = np.array([0.85, 0.85, 0.85, 0.9]), np.array([0.97, 0.97, 0.97, 0.45])
    measured = measure(before=before, after=after)
    assert failed(judge(measured)) == {"safety:person"}
    assert failed(judge(measured, safety_margins=["road=60"])) == {"safety:person"}
    assert judge(measured, safety_margins=["person=60"]).verdict == "promote"
    assert failed(judge(measured, safety_margin=60, safety_margins=["person=5"])) == {"safety:person"}
    for wrong in ("person", "person=", "=3", "person=-1", "person=x"):
        with pytest.raises(ConfigError, match="is not class=points"):
            parse_settings(GateSettings, {"safety_margins": [wrong]}, source="test")


def test_the_source_pack_has_safety_classes_too():
    rates = np.array([0.9, 0.9, 0.9, 0.9]), np.array([0.97, 0.97, 0.97, 0.3])
    measured = measure(source=rates)
    decision = judge(measured, source_margin=12)
    assert failed(decision) == {"safety:person@source pack"}


def test_a_decision_keeps_the_figures_of_every_road_and_class():
    measured = measure(frames=8, domains=("night",) * 5 + ("day",) * 3, target="night")
    decision = judge(measured)
    assert list(decision.domains) == ["night", "day", "source pack"]
    assert [figures.frames for figures in decision.domains.values()] == [5, 3, 30]
    night = decision.domains["night"]
    assert night.miou["challenger"] == pytest.approx(decision.miou_challenger, abs=1e-3)
    assert night.miou["challenger"] == pytest.approx(
        np.mean([night.iou[c]["challenger"] for c in SPACE.classes]), abs=0.01
    )
    assert decision.target == "night"
