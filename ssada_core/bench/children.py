"""The processes that a measurement runs in: started one by one, asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ssada_core.errors import EngineError

QUIT_S = 30.0
"""How long a child may take to end once it is told to."""


class Child:
    """A process that answers jobs line by line, as :mod:`ssada_core.bench.inference_child` does; a context manager."""

    def __init__(
        self,
        name: str,
        spec: Mapping[str, Any],
        *,
        threads: int,
        module: str = "ssada_core.bench.inference_child",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; :meth:`wait_until_ready` says when it answers.

        Args:
            name: for errors.
            spec: what it is to load.
            threads: for libraries that take their number from the environment.
            module: run with ``python -m``.
            variables: the environment; this process's own by default.
        """
        self._name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed in __exit__)
        environment = {**(os.environ if variables is None else variables), "OMP_NUM_THREADS": str(threads)}
        self._started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            text=True,
        )
        self._say(spec)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(QUIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def wait_until_ready(self) -> tuple[float, float]:
        """Seconds from the start of the process to its first answer, and of that to load the engine.

        Raises:
            EngineError: if the engine could not be loaded, with its reason.
        """
        answer = self._hear()
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        return time.perf_counter() - self._started, float(answer["load_s"])

    def ask(self, job: str, value: object = None) -> dict[str, Any]:
        """Have it do one job, and wait for the answer.

        Raises:
            EngineError: if the job failed or the process ended.
        """
        self._say({job: value})
        answer = self._hear()
        if "error" in answer:
            raise EngineError(str(answer["error"]))
        return answer

    def _say(self, words: Mapping[str, Any]) -> None:
        if self._process.stdin is None:
            raise EngineError(f"{self._name}: its process has no input")
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def _hear(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> EngineError:
        status = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().rpartition("\n")[2]
        return EngineError(f"{self._name}: its process ended with status {status} ({last or 'no message'})")
