"""The rounds of a vehicle on disk: start one, find the one that was cut off, judge it, keep what was decided."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ssada_core.adaptation.case_bars import CaseBars
from ssada_core.adaptation.gate import Decision, GateSettings, Measurements, decide
from ssada_core.adaptation.round import (
    CHECKPOINT_FILE,
    DECISION_FILE,
    MEASUREMENTS_FILE,
    ROUND_FILE,
    RoundResult,
    RoundSpec,
    read_result,
    read_round,
    write_round,
)
from ssada_core.adaptation.worker_process import HUNG_AFTER_S, Progress, State, WorkerProcess
from ssada_core.errors import StoreError, WorkerError
from ssada_core.labels import LabelSpace
from ssada_core.store.files import TEMPORARY_SUFFIX, read_json, write_json

_NAME = re.compile(r"round-(\d{4,})")


class Rounds:
    """At most one round at a time; all of them stay on disk as a record, without the weights of those decided."""

    def __init__(
        self, root: Path, *, restarts: int, log: Callable[[str], None], hung_after_s: float = HUNG_AFTER_S
    ) -> None:
        self._root = root
        self._restarts = restarts
        self._hung_after_s = hung_after_s
        self._log = log
        self._worker: WorkerProcess | None = None
        self._make_room()

    @property
    def run_dir(self) -> Path | None:
        """Folder of the newest round, or None before the first."""
        found = self._folders()
        return found[-1] if found else None

    def spec(self) -> RoundSpec | None:
        """What the newest round was asked to do, or None before the first.

        Raises:
            WorkerError: if it cannot be read, or is of another release.
        """
        newest = self.run_dir
        return read_round(newest) if newest is not None else None

    def labels(self, pool_id: str) -> int:
        """Labels of this pool that the newest round used up, whichever release wrote it; 0 where nothing says so."""
        newest = self.run_dir
        try:
            values = yaml.safe_load((newest / ROUND_FILE).read_bytes()) if newest is not None else None
        except (OSError, ValueError, yaml.YAMLError) as error:
            self._log(f"{newest}: {ROUND_FILE} cannot be read ({error}): all labels count as new")
            return 0
        if not isinstance(values, dict) or (values.get("pool") or pool_id) != pool_id:
            return 0
        found = values.get("labels")
        return found if isinstance(found, int) else 0

    def decision(self) -> dict[str, Any]:
        """What was decided on the newest round; empty while it is unfinished, and before the first.

        Raises:
            StoreError: if it cannot be read, or is something else.
        """
        path = self.run_dir / DECISION_FILE if self.run_dir is not None else None
        values = read_json(path) if path is not None and path.exists() else {}
        if not isinstance(values, dict):
            raise StoreError(f"{path} is no decision: delete it, and the round is judged again")
        return values

    def unfinished(self) -> Path | None:
        """A round that was started and never decided: the node or the machine went down in between."""
        newest = self.run_dir
        if newest is None or (newest / DECISION_FILE).exists():
            return None
        return newest

    def start(self, spec: RoundSpec) -> Path:
        """Start a round in a new folder.

        Raises:
            WorkerError: if one is running, or the process cannot be started.
            StoreError: if the disk refuses.
        """
        if self._worker is not None:
            raise WorkerError(f"a round is running in {self._worker.run_dir}: wait for it")
        folders = self._folders()
        number = int(folders[-1].name.partition("-")[2]) + 1 if folders else 1
        run_dir = self._root / f"round-{number:04d}"
        self._make_room()
        write_round(run_dir, spec)
        return self.resume(run_dir)

    def resume(self, run_dir: Path) -> Path:
        """Go on with a round that was stopped or killed.

        Raises:
            WorkerError: if the process cannot be started.
        """
        self._worker = WorkerProcess(run_dir, restarts=self._restarts, hung_after_s=self._hung_after_s)
        self._log(f"round in {run_dir}, worker {self._worker.pid}")
        return run_dir

    def poll(self) -> State | None:
        """How the worker stands; None when there is none.

        Raises:
            WorkerError: if a killed worker cannot be started again.
        """
        if self._worker is None:
            return None
        pid, hung = self._worker.pid, self._worker.hung
        state = self._worker.poll()
        if self._worker.hung != hung:
            self._log(f"training worker {pid} made no progress for {self._hung_after_s:.0f} s and was killed")
        if self._worker.pid != pid:
            self._log(f"training worker {pid} was killed; {self._worker.pid} resumes the round")
        return state

    def progress(self) -> Progress | None:
        """Figures of the running round."""
        return self._worker.progress() if self._worker is not None else None

    def stop(self) -> None:
        """Stop the worker at its next checkpoint; the round can be resumed."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def judge(
        self, settings: GateSettings, label_space: LabelSpace, bars: CaseBars | None = None
    ) -> tuple[RoundResult, Decision]:
        """Decide on the newest round, which is finished. The decision is not stored yet: see :meth:`close`.

        Those of the ``bars`` count that were measured against the labels of today.

        Raises:
            WorkerError: if the round left no readable result or measurements.
            StoreError: likewise.
        """
        run_dir = self._newest()
        result = read_result(run_dir)
        measured = Measurements.load(run_dir / MEASUREMENTS_FILE)
        holding = bars.holding(result.case_labels) if bars is not None else {}
        return result, decide(measured, settings, label_space, holding)

    def close(self, decision: Mapping[str, Any]) -> None:
        """Keep the decision beside the newest round, in place of an earlier one; from now on it is finished.

        Raises:
            StoreError: if the disk refuses; after a restart the round is unfinished then.
        """
        self.stop()
        newest = self._newest()
        write_json(newest / DECISION_FILE, dict(decision))
        self._make_room()

    def failure(self) -> str:
        """Why the worker failed, in one line."""
        return self._worker.failure() if self._worker is not None else "no worker is running"

    def _newest(self) -> Path:
        newest = self.run_dir
        if newest is None:
            raise WorkerError(f"there is no round in {self._root}: start one")
        return newest

    def _make_room(self) -> None:
        """Delete what no round needs any more: a checkpoint is as large as three models, and they would fill the disk.

        Only the newest round can be resumed, and only while it is undecided. Half-written files are a killed worker's.
        No worker runs.
        """
        unfinished = self.unfinished()
        for folder in self._folders():
            useless = list(folder.glob(f".*{TEMPORARY_SUFFIX}"))
            if folder != unfinished:
                useless.append(folder / CHECKPOINT_FILE)
            for path in useless:
                with contextlib.suppress(OSError):  # a disk that refuses: the next start tries again
                    path.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        if not self._root.is_dir():
            return []
        found = [path for path in self._root.iterdir() if _NAME.fullmatch(path.name) and (path / ROUND_FILE).exists()]
        return sorted(found, key=lambda path: int(path.name.partition("-")[2]))
