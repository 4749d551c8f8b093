"""Running the annotation page: in the foreground for ``ssada annotate``, or as the adaptation node's child process.

``python -m ssada_core.annotation.serve`` takes its job as JSON from the environment (``SSADA_ANNOTATE_JOB``): the
token must not stand on a command line, which every user of the machine can read.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import Field

from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.annotation.desk import Desk
from ssada_core.annotation.settings import AnnotateSettings
from ssada_core.annotation.workbench import Source, Workbench
from ssada_core.errors import ConfigError, SsadaError, require
from ssada_core.labels import LabelSpace
from ssada_core.settings import Settings, parse_settings
from ssada_core.store.pool import FramePool, PoolSettings

JOB_VARIABLE = "SSADA_ANNOTATE_JOB"


class AnnotateJob(Settings):
    """What to serve, and how."""

    pool_dir: str = Field(description="Folder of the frame pool.")
    label_space: dict[str, Any] = Field(description="The pool's label space, as ``LabelSpace.to_dict`` gives it.")
    pool: PoolSettings = Field(default_factory=PoolSettings)
    annotate: AnnotateSettings = Field(default_factory=AnnotateSettings)
    label_check: LabelCheckSettings = Field(default_factory=LabelCheckSettings)
    budget: int = Field(0, ge=0, description="Frames that may be asked for; 0 where that is not known.")
    registry_dir: str = Field("", description="Folder of the model registry, to show its figures; empty for none.")
    ends_with_stdin: bool = Field(False, description="End when standard input is closed: with the parent, however.")


def serve(job: AnnotateJob, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        job: what to serve.
        ready: called with the page's address once it answers.

    Raises:
        MissingExtraError: if FastAPI or uvicorn is not installed.
        ConfigError: if the settings leave the door open, or the address cannot be had.
        StoreError: if the pool cannot be used.
    """
    settings = job.annotate
    settings.check()
    require("fastapi", extra="annotate", purpose="the annotation page")
    uvicorn: Any = require("uvicorn", extra="annotate", purpose="the annotation page")
    from ssada_core.annotation.server import create_app

    with ExitStack() as undo:
        listener = undo.enter_context(_listen(settings))
        space = LabelSpace.from_dict(job.label_space, source="the annotation page's label space")
        pool = undo.enter_context(FramePool(job.pool_dir, job.pool, label_space=space))
        desk = Desk(Path(job.pool_dir), settings.lease_s)
        undo.callback(desk.close)
        source = Source(job.budget, Path(job.registry_dir) if job.registry_dir else None)
        bench = Workbench(pool, desk, check=job.label_check, source=source)
        stop = threading.Event()
        thread = threading.Thread(target=bench.precompute, args=(stop,), name="superpixels", daemon=True)
        thread.start()
        undo.callback(thread.join)
        undo.callback(stop.set)
        if job.ends_with_stdin:
            threading.Thread(target=_end_with_stdin, name="parent", daemon=True).start()
        config = uvicorn.Config(
            create_app(bench, settings),
            log_level="warning",
            server_header=False,
            access_log=False,
            ws="none",
            limit_concurrency=200,
            timeout_graceful_shutdown=5,
        )
        ready(_address(settings, listener))
        uvicorn.Server(config).run(sockets=[listener])


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass  # nobody says anything; the end is the message
    os.kill(os.getpid(), signal.SIGTERM)


def _listen(settings: AnnotateSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(128)  # connections wait here until the server takes them
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}): choose another port or host"
        ) from error
    return listener


def _address(settings: AnnotateSettings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}/"


def main() -> int:
    """Serve the job of the environment; returns the exit status."""
    import json

    try:
        values = json.loads(os.environ.pop(JOB_VARIABLE, "null"))
        if not isinstance(values, dict):
            raise ConfigError(f"{JOB_VARIABLE} is not set: use `ssada annotate`")
        serve(parse_settings(AnnotateJob, values, source=JOB_VARIABLE), _say)
    except SsadaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _say(address: str) -> None:
    sys.stdout.write(f"annotation page: {address}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
