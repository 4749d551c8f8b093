"""The adaptation's figures as diagnostics that an operator can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from ssada_ros import diagnostics


def adaptation_statuses(node: str, status: Mapping[str, Any]) -> list[DiagnosticStatus]:
    """Five statuses: the work itself, frame pool and queries, training, the gate's last decision, the road."""
    parts = (_work, _pool, _training, _gate, _road)
    return [part(node, status) for part in parts]


def failure_status(node: str, failure: Exception) -> DiagnosticStatus:
    """The working thread has ended; the last words of the process."""
    words = f"no more adaptation, the process ends: {type(failure).__name__}: {failure}"
    return diagnostics.status(f"{node}: work", diagnostics.ERROR, words, {})


def _work(node: str, status: Mapping[str, Any]) -> DiagnosticStatus:
    values = {"version": status["version"], "phase": status["phase"], "paused": status["paused"]}
    if status["trouble"]:
        return diagnostics.status(f"{node}: work", diagnostics.WARN, status["trouble"], values)
    words = "paused" if status["paused"] else status["phase"]
    return diagnostics.status(f"{node}: work", diagnostics.OK, words, values)


def _pool(node: str, status: Mapping[str, Any]) -> DiagnosticStatus:
    counts, room = status["pool"], status.get("room", {})
    values = {
        **{f"frames_{state}": count for state, count in counts.items()},
        "megabytes": status["pool_bytes"] / 1e6,
        **room,
        "queries_open": counts["queried"],
        "budget": status["budget"],
        "asked": status["asked"],
        "labels": status["labels"],
        "audit_labels": status["audit_labels"],
    }
    held = counts["held"]
    if status["pool_trouble"]:
        return diagnostics.status(f"{node}: pool", diagnostics.ERROR, status["pool_trouble"], values)
    if held:
        return diagnostics.status(f"{node}: pool", diagnostics.WARN, f"{held} labels are held: look at them", values)
    if room.get("disk_is_short"):
        words = "less of the disk is free than pool.keep_free_share: new frames may not be stored"
        return diagnostics.status(f"{node}: pool", diagnostics.WARN, words, values)
    words = "paused" if status["paused"] else f"{counts['queried']} queries wait for a human"
    return diagnostics.status(f"{node}: pool", diagnostics.OK, words, values)


def _training(node: str, status: Mapping[str, Any]) -> DiagnosticStatus:
    line = status["training"]  # the last of progress.jsonl: iteration, ETA, and the losses below "figures"
    values = {"phase": status["phase"], **{key: value for key, value in line.items() if not isinstance(value, dict)}}
    values |= line.get("figures", {})
    if status["failure"]:
        return diagnostics.status(f"{node}: training", diagnostics.ERROR, status["failure"], values)
    return diagnostics.status(f"{node}: training", diagnostics.OK, status["phase"], values)


def _gate(node: str, status: Mapping[str, Any]) -> DiagnosticStatus:
    decision = status["decision"]
    keys = ("version", "verdict", "gain", "probability", "miou_champion", "miou_challenger", "audit_frames")
    values = {key: decision[key] for key in keys if key in decision}
    waits = decision.get("verdict") == "wait_for_human"
    level = diagnostics.WARN if waits or decision.get("verdict") == "failed" else diagnostics.OK
    return diagnostics.status(f"{node}: gate", level, decision.get("words", "nothing is decided yet"), values)


def _road(node: str, status: Mapping[str, Any]) -> DiagnosticStatus:
    """Whether the model was made for this road, and who drives along."""
    road, watch, shadow = status["road"], status["watch"], status["shadow"]
    values = {f"drift_{key}": value for key, value in road.items()}
    values |= {f"watch_{key}": value for key, value in (watch or {}).items()}
    values |= {f"shadow_{key}": value for key, value in (shadow or {}).items()}
    values["flags"] = status["flags"]
    if status["troubles"]:
        words = "; ".join(f"{name}: {trouble}" for name, trouble in status["troubles"].items())
        return diagnostics.status(f"{node}: road", diagnostics.WARN, words, values)
    name = road["domain"] or "not known yet"
    if road["drifted"]:
        words = f"the model was not made for this road ({name}): drift score {road['score']:.1f}, bound 1"
        return diagnostics.status(f"{node}: road", diagnostics.WARN, words, values)
    watched = f"; {watch['version']} is watched, {watch['seen']} of {watch['frames']} frames" if watch else ""
    return diagnostics.status(f"{node}: road", diagnostics.OK, f"{name}{watched}", values)
