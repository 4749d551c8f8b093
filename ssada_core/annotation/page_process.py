"""The annotation page beside a node: a process of its own, started again when it ends, gone when the node is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from ssada_core.annotation.serve import JOB_VARIABLE, AnnotateJob
from ssada_core.annotation.settings import TOKEN_VARIABLE
from ssada_core.errors import require

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a page that ended is started again, growing; from the start once it has answered."""
STOP_TIMEOUT_S = 10.0


class PageProcess:
    """Keeps the page up in a thread of its own until :meth:`close`.

    The page hears of its parent's end by its standard input: when that is closed, by whomever, it ends.
    """

    def __init__(self, job: AnnotateJob, log: Callable[[str], None]) -> None:
        """Start it.

        Args:
            job: what to serve.
            log: gets the page's address, and why it ended.

        Raises:
            MissingExtraError: if FastAPI or uvicorn is not installed.
            ConfigError: if the settings leave the door open.
        """
        annotate = job.annotate
        if not annotate.token:
            annotate = annotate.model_copy(update={"token": os.environ.get(TOKEN_VARIABLE, "")})
        annotate.check()
        for module in ("fastapi", "uvicorn"):
            require(module, extra="annotate", purpose="the annotation page (annotate.enabled)")
        self._job = job.model_copy(update={"annotate": annotate, "ends_with_stdin": True})
        self._log = log
        self._closing = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep_up, name="annotation page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the page; more than once is fine."""
        with self._lock:
            self._closing.set()
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def _keep_up(self) -> None:
        failures = 0
        while not self._closing.is_set():
            answered, words = self._run()
            if self._closing.is_set():
                return
            failures = 0 if answered else failures + 1
            pause = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            self._log(f"the annotation page ended ({words}), it is started again in {pause:g} s")
            self._closing.wait(pause)

    def _run(self) -> tuple[bool, str]:
        """Run it once; returns whether it ever answered, and its last words."""
        environment = {**os.environ, JOB_VARIABLE: self._job.model_dump_json()}
        command = [sys.executable, "-m", "ssada_core.annotation.serve"]
        with self._lock:
            if self._closing.is_set():
                return False, ""
            try:
                self._process = process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except OSError as error:  # no memory or no processes left for the moment
                return False, f"it could not be started: {error}"
        answered, words = False, ""
        with process:
            for line in process.stdout or ():
                words = line.strip() or words
                if words.startswith("annotation page: "):
                    answered = True
                self._log(words)
        return answered, words or f"status {process.returncode}"
