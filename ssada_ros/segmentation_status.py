"""The segmentation's figures as diagnostics that an operator can act on."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticStatus

from ssada_ros import diagnostics
from ssada_ros.mailbox import CameraCounts
from ssada_ros.model_slot import ModelSlot
from ssada_ros.segmentation_loop import CameraChannel
from ssada_ros.statistics import Timing


def model_status(node: str, slot: ModelSlot) -> DiagnosticStatus:
    """The model in use; a warning if another one was asked for and could not be loaded."""
    model = slot.model
    values = {
        "version": model.version,
        "created": model.created,
        "backend": model.engine.backend,
        "precision": model.engine.precision,
        "input_size": "x".join(map(str, reversed(model.engine.input_size))),
    }
    level, words = (diagnostics.WARN, slot.last_error) if slot.last_error else (diagnostics.OK, model.version)
    return diagnostics.status(f"{node}: model", level, words, values)


def failure_status(node: str, failure: Exception) -> DiagnosticStatus:
    """The inference thread has ended; the last words of the process."""
    words = f"no more masks, the process ends: {type(failure).__name__}: {failure}"
    return diagnostics.status(f"{node}: model", diagnostics.ERROR, words, {})


class CameraWatch:
    """Judges one camera once a second.

    Attributes:
        silent_s: how long nothing has come; 0 while frames come.
    """

    silent_s: float = 0.0

    def __init__(self, node: str, channel: CameraChannel, *, silence_s: float) -> None:
        self._name = f"{node}: {channel.camera.name}"
        self._channel = channel
        self._silence_s = silence_s
        self._errors_reported = 0

    def status(self, counts: CameraCounts | None, active_since_ns: int, topics: str) -> DiagnosticStatus:
        """One status.

        Args:
            counts: what the mailbox counted since the activation; None while the node is not active.
            active_since_ns: monotonic time of the activation.
            topics: what to say of the topics there are, if nothing came.
        """
        now_ns = time.monotonic_ns()
        timing = self._channel.timing.summary(now_ns)
        errors = self._channel.error_count
        values: dict[str, object] = {
            "topic": self._channel.camera.topic,
            "rate_hz": timing.rate_hz,
            "latency_p50_ms": timing.p50_ms,
            "latency_p99_ms": timing.p99_ms,
            "engine_p50_ms": timing.engine_p50_ms,
            "overhead_p50_ms": timing.overhead_p50_ms,
            "age_s": timing.age_s,
            "masks": timing.frames,
            "received": counts.received if counts else 0,
            "dropped": counts.dropped if counts else 0,
            "errors": errors,
        }
        level, words = self._judge(counts, timing, (now_ns - active_since_ns) / 1e9, topics)
        self._errors_reported = errors
        return diagnostics.status(self._name, level, words, values)

    def is_silent(self, counts: CameraCounts | None, active_since_ns: int) -> bool:
        """Whether nothing has come for ``silence_s``; keeps :attr:`silent_s`."""
        last_ns = max(counts.last_ns, active_since_ns) if counts else time.monotonic_ns()
        silent_s = (time.monotonic_ns() - last_ns) / 1e9
        self.silent_s = silent_s if silent_s > self._silence_s else 0.0
        return self.silent_s > 0

    def _judge(self, counts: CameraCounts | None, timing: Timing, active_s: float, topics: str) -> tuple[bytes, str]:
        if counts is None:
            return diagnostics.STALE, "not active"
        if self.silent_s:
            return diagnostics.ERROR, f"no frame for {self.silent_s:.0f} s: {topics}"
        skipped = self._channel.error_count - self._errors_reported
        without_mask_s = min(timing.age_s, active_s)
        if without_mask_s > self._silence_s:
            return diagnostics.ERROR, f"frames come, but no mask for {without_mask_s:.0f} s: {self._reason()}"
        if skipped:
            return diagnostics.WARN, f"{skipped} frames skipped in the last second: {self._reason()}"
        return diagnostics.OK, f"{timing.rate_hz:.1f} Hz"

    def _reason(self) -> str:
        return self._channel.last_error or "the model has not answered yet"
