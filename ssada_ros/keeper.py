"""Keeps described processes running: what ends is started again, after a pause that grows, and never in silence.

A node has no end of its own, so whatever ended one (a crash, the kernel's out-of-memory killer, a stray signal), it
is started again. The first restart comes at once, because a vehicle without masks is the worst that can happen; a
process that keeps ending waits longer each time. An essential process that cannot be kept running stops everything,
so that whoever watches from outside (systemd) sees it; any other is tried for ever, or switched off where its
parameters are wrong, and the masks go on.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssada_core.errors import ConfigError, SsadaError
from ssada_ros.processes import ProcessDescription
from ssada_ros.supervisor import Supervisor

EXIT_WRONG_USE = 2
"""What a node ends with when its parameters are wrong: starting it again cannot help."""
POLL_S = 0.1


@dataclass(frozen=True)
class RestartPolicy:
    """When an ended process is started again.

    Attributes:
        restarts: in a row, without a stable stretch between them, before an essential process is given up; 0 gives
            up any process at its first end.
        first_pause_s: before the second restart in a row; the first one comes at once.
        longest_pause_s: the pause doubles up to this.
        stable_s: a process that has lived this long counts as running again.
    """

    restarts: int = 5
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    stable_s: float = 10.0

    def pause(self, restart: int) -> float:
        """Seconds to wait before restart number ``restart`` (from 1) in a row."""
        if restart <= 1:
            return 0.0
        return min(self.first_pause_s * 2.0 ** min(restart - 2, 32), self.longest_pause_s)


@dataclass
class _Life:
    """What is known of one process: when it was started, how often in a row it ended young, whether it is given up."""

    started: float
    failures: int = 0
    was_stable: bool = False
    due: float | None = None
    off: bool = False


class Keeper:
    """Watches a started :class:`Supervisor`. Call :meth:`step` again and again, or :meth:`run`."""

    def __init__(
        self,
        supervisor: Supervisor,
        descriptions: Sequence[ProcessDescription],
        policy: RestartPolicy,
        tell: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            supervisor: has started the processes.
            descriptions: of these.
            policy: when to start again.
            tell: gets one line for each end and each restart.
        """
        self._supervisor = supervisor
        self._descriptions = {description.name: description for description in descriptions}
        self._policy = policy
        self._tell = tell
        now = time.monotonic()
        self._lives = {name: _Life(now) for name in self._descriptions}

    def run(self) -> str:
        """Watch until a process that may end has done so; returns its name.

        Raises:
            ConfigError: if an essential process refuses its parameters at the start.
            SsadaError: if a process is given up.
        """
        while True:
            finished = self.step(time.monotonic())
            if finished is not None:
                return finished
            time.sleep(POLL_S)

    def step(self, now: float) -> str | None:
        """Look once; returns the name of a process whose end is the end of the work, if there is one.

        Args:
            now: seconds on a steady clock.

        Raises:
            ConfigError: if an essential process refuses its parameters at the start.
            SsadaError: if a process is given up.
        """
        statuses = self._supervisor.poll()
        for name, life in self._lives.items():
            if life.off:
                continue
            if life.due is not None:
                self._start_when_due(name, life, now)
            elif name not in statuses:
                self._try_again(name, life, now, f"{name} could not be started")
            elif (status := statuses[name]) is None:
                self._note_stable(life, now)
            elif status == 0 and self._descriptions[name].may_end:
                return name
            else:
                self._plan(name, life, status, now)
        return None

    def _note_stable(self, life: _Life, now: float) -> None:
        if now - life.started >= self._policy.stable_s:
            life.failures, life.was_stable = 0, True

    def _plan(self, name: str, life: _Life, status: int, now: float) -> None:
        self._note_stable(life, now)
        ended = f"{name} {describe_end(status)}{self._last_words(name)}"
        allowed, essential = self._policy.restarts, self._descriptions[name].essential
        # Later the same status can come of a disk that has gone: then it is worth trying again.
        if status == EXIT_WRONG_USE and not life.was_stable:
            if essential or not allowed:
                raise ConfigError(ended)
            life.off = True
            self._tell(f"{ended}; switched off, the others go on")
            return
        life.failures += 1
        if not allowed or (life.failures > allowed and essential):
            tried = f" after {allowed} restarts in a row" if allowed else ""
            raise SsadaError(f"{ended}; given up{tried}")
        self._try_again(name, life, now, ended)

    def _try_again(self, name: str, life: _Life, now: float, why: str) -> None:
        pause = self._policy.pause(life.failures)
        life.due = now + pause
        self._tell(f"{why}; starting it again {f'in {pause:g} s' if pause else 'now'}")
        self._start_when_due(name, life, now)

    def _start_when_due(self, name: str, life: _Life, now: float) -> None:
        if life.due is None or now < life.due:
            return
        life.due, life.started = None, now
        try:
            self._supervisor.start_one(name)
        except SsadaError as error:  # for want of memory, or of room for a log: not for ever, so nothing is given up
            life.failures = max(life.failures, 1) + 1  # only the first restart comes without a pause
            self._try_again(name, life, now, str(error))

    def _last_words(self, name: str) -> str:
        words = self._supervisor.log_tail(name, lines=1).strip()
        return f": {words}" if words else ""


def describe_end(status: int) -> str:
    """Say how a process ended: "ended with status 1", "was ended by SIGKILL"."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
