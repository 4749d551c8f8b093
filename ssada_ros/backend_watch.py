"""When an inference backend is gone for good: what a process cannot mend, a new one may."""

from __future__ import annotations

MOST_FAILURES, FAILING_S = 10, 2.0
"""Failures of the backend in a row, and seconds from the first to the newest, after which it is taken for gone."""


class BackendWatch:
    """Tells a backend that is gone, as with a GPU that was lost, from one that failed once."""

    def __init__(self) -> None:
        self._failures, self._since_s = 0, 0.0

    def worked(self) -> None:
        """It answered."""
        self._failures = 0

    def failed(self, now_s: float) -> bool:
        """It did not answer; whether it is gone. ``now_s`` is of a steady clock."""
        if not self._failures:
            self._since_s = now_s
        self._failures += 1
        return self._failures >= MOST_FAILURES and now_s - self._since_s >= FAILING_S
