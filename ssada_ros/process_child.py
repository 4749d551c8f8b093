"""``python -m ssada_ros.process_child --parent PID --nice N MODULE ARGS...``: run a module as a supervised child.

The process becomes MODULE (nothing stays in between), and ends with SIGTERM when its parent dies, even by SIGKILL.
This is done here, after ``exec``, and not by ``preexec_fn``, which can deadlock in a parent that has threads.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent ends; end at once if it already has."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Apply the two options and run the module as if ``python -m`` had been asked for it."""
    _, parent, _, nice, module, *rest = arguments
    end_with_parent(int(parent))
    if int(nice):
        os.nice(int(nice))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
