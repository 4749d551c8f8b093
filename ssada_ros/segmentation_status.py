"""The segmentation's figures as diagnostics that an operator can act on; ``docs/diagnostics.md`` states the rules."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime, timezone

from diagnostic_msgs.msg import DiagnosticStatus

from ssada_ros import diagnostics
from ssada_ros.camera_input import CameraInput
from ssada_ros.mailbox import CameraCounts
from ssada_ros.model_slot import ModelSlot
from ssada_ros.segmentation_loop import CameraChannel
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.statistics import LATENCY_KEY, Timing

ARRIVALS = 6
"""Looks at the counts that the camera's own rate and the share of drops are taken from: the last five seconds."""
MOST_DROPPED = 0.5
"""Share of dropped frames from which the machine is called too slow."""
FEWEST_FRAMES = 5
"""Frames below which a share says nothing."""


def model_status(node: str, slot: ModelSlot) -> DiagnosticStatus:
    """The model in use; a warning if another one was asked for and could not be loaded."""
    model = slot.model
    values = {
        "version": model.version,
        "created": model.created,
        "age_days": _age_days(model.created),
        "backend": model.engine.backend,
        "precision": model.engine.precision,
        "input_size": "x".join(map(str, reversed(model.engine.input_size))),
        "label_space": model.label_space.name,
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

    def __init__(self, node: str, channel: CameraChannel) -> None:
        self._name = f"{node}: {channel.camera.name}"
        self._channel = channel
        self._errors_reported = 0
        self._jumps_reported = 0
        self._seen: deque[tuple[int, CameraCounts]] = deque(maxlen=ARRIVALS)

    def begin(self) -> None:
        """The node was activated: the counts start anew."""
        self._seen.clear()

    def is_silent(self, counts: CameraCounts | None, active_since_ns: int, settings: SegmentationSettings) -> bool:
        """Whether nothing has come for the time that is silence; keeps :attr:`silent_s`."""
        last_ns = max(counts.last_ns, active_since_ns) if counts else time.monotonic_ns()
        silent_s = (time.monotonic_ns() - last_ns) / 1e9
        self.silent_s = silent_s if silent_s > settings.silence_s else 0.0
        return self.silent_s > 0

    def status(
        self,
        counts: CameraCounts | None,
        source: CameraInput | None,
        active_since_ns: int,
        settings: SegmentationSettings,
        topics: str,
    ) -> DiagnosticStatus:
        """One status.

        Args:
            counts: what the mailbox counted since the activation; None while the node is not active.
            source: the camera's subscription; None while the node is not active.
            active_since_ns: monotonic time of the activation.
            settings: those in force.
            topics: what to say of the topics there are, if nothing came.
        """
        now_ns = time.monotonic_ns()
        timing = self._channel.timing.summary(now_ns)
        if counts is None or source is None:
            values = self._values(timing, CameraCounts(0, 0, 0), None, now_ns)
            return diagnostics.status(self._name, diagnostics.STALE, "not active", values)
        self._seen.append((now_ns, counts))
        active_s = (now_ns - active_since_ns) / 1e9
        error = self._error(timing, active_s, settings, source.complaint or topics)
        warning = self._warning(source)
        level = diagnostics.ERROR if error else diagnostics.WARN if warning else diagnostics.OK
        values = self._values(timing, counts, source, now_ns)
        self._errors_reported, self._jumps_reported = self._channel.error_count, self._channel.stamps.jumps
        return diagnostics.status(self._name, level, error or warning or f"{timing.rate_hz:.1f} Hz", values)

    def _values(
        self, timing: Timing, counts: CameraCounts, source: CameraInput | None, now_ns: int
    ) -> dict[str, object]:
        channel = self._channel
        camera_hz, dropped_share = self._recent()
        return {
            "topic": source.source.topic if source else channel.camera.topic,
            "type": source.source.message_type.__name__ if source else "",
            "format": channel.format,
            "version": channel.version,
            "rate_hz": timing.rate_hz,
            "camera_rate_hz": camera_hz,
            "frame_age_s": (now_ns - counts.last_ns) / 1e9 if counts.last_ns else float("inf"),
            "age_s": timing.age_s,
            "latency_p50_ms": timing.p50_ms,
            "latency_p99_ms": timing.p99_ms,
            LATENCY_KEY: timing.recent_p99_ms,
            "engine_p50_ms": timing.engine_p50_ms,
            "overhead_p50_ms": timing.overhead_p50_ms,
            "interval_p50_ms": timing.interval_p50_ms,
            "interval_p99_ms": timing.interval_p99_ms,
            "interval_max_ms": timing.interval_max_ms,
            "masks": timing.frames,
            "received": counts.received,
            "dropped": counts.dropped,
            "dropped_share": dropped_share,
            "limited": counts.limited,
            "errors": channel.error_count,
            "stamp_jumps": channel.stamps.jumps,
        }

    def _recent(self) -> tuple[float, float]:
        """The camera's own rate in Hz, and the share of its frames that were dropped, over the last seconds."""
        if len(self._seen) < 2:
            return 0.0, 0.0
        (then_ns, then), (now_ns, now) = self._seen[0], self._seen[-1]
        came = now.received - then.received
        share = (now.dropped - then.dropped) / came if came >= FEWEST_FRAMES else 0.0
        return came / (now_ns - then_ns) * 1e9, share

    def _error(self, timing: Timing, active_s: float, settings: SegmentationSettings, topics: str) -> str:
        """Why there are no masks; empty while there are."""
        if self.silent_s:
            return f"no frame for {self.silent_s:.0f} s: {topics}"
        without_mask_s = min(timing.age_s, active_s)
        patience_s = max(settings.silence_s, 2.0 / settings.rate if settings.rate else 0.0)
        if without_mask_s > patience_s:
            return f"frames come, but no mask for {without_mask_s:.0f} s: {self._reason()}"
        return ""

    def _warning(self, source: CameraInput) -> str:
        """What is wrong though masks come; empty if nothing is."""
        channel = self._channel
        if skipped := channel.error_count - self._errors_reported:
            return f"{skipped} frames skipped in the last second: {self._reason()}"
        if source.complaint:
            return source.complaint
        if channel.stamps.jumps > self._jumps_reported:
            return f"{channel.stamps.words}: is the clock or the driver sound?"
        if channel.info_misfit:
            return f"{channel.info_misfit}, the frames are {channel.format}: no camera_info goes out"
        share = self._recent()[1]
        if share > MOST_DROPPED:
            return f"{share:.0%} of the frames dropped: the machine is slower than the cameras"
        return ""

    def _reason(self) -> str:
        return self._channel.last_error or "the model has not answered yet"


def _age_days(created: str) -> float | str:
    """Days since an ISO 8601 time; empty where there is none."""
    try:
        made = datetime.fromisoformat(created.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
    except ValueError:
        return ""
    made = made if made.tzinfo else made.replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - made).total_seconds() / 86400
