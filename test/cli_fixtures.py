"""The command line in the test's own process: a process for each command costs seconds of imports."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock


@dataclass(frozen=True)
class Done:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


def ssada_here(*arguments: object) -> Done:
    """Run ``ssada`` with these arguments, as :func:`ssada_ros.cli.main` does.

    What libraries write to the file descriptors themselves is not seen here, and no signal can be sent: tests of these
    start a process.
    """
    from ssada_core.commands.common import console
    from ssada_ros.cli import main

    out, err = io.StringIO(), io.StringIO()
    width, console.width = console.width, 200
    try:
        with (
            mock.patch.object(sys, "argv", ["ssada", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            status = main()
    finally:
        console.width = width
    return Done(status, out.getvalue(), err.getvalue())
