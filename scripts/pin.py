"""Write ``constraints.txt``: the versions of everything that this package pulls in, as installed here and tested.

    .venv/bin/python scripts/pin.py

Run it in a virtual environment in which all tests have just passed. Only what the extras below need is pinned;
``nvidia-*`` and ``triton`` are left out, because each torch names its own exactly.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "ssada_ros"
EXTRAS = ("ros", "openvino", "test")
LEFT_OUT = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Versions that all tests passed with (CPython {python}); written by scripts/pin.py, used by scripts/setup.sh.
# What setup.py asks for is wider; this file makes two set-ups of the same commit alike.
"""


def closure() -> dict[str, str]:
    """Canonical name to version of every installed requirement, direct or not."""
    found: dict[str, str] = {}
    open_requests = [(PACKAGE, extra) for extra in ("", *EXTRAS)]
    seen = set(open_requests)
    while open_requests:
        name, extra = open_requests.pop()
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # a marker that does not hold here, or an extra that was not installed
            continue
        found[canonicalize_name(name)] = installed.version
        for text in installed.requires or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                request = (canonicalize_name(requirement.name), wanted)
                if request not in seen:
                    seen.add(request)
                    open_requests.append(request)
    del found[canonicalize_name(PACKAGE)]
    return {name: version for name, version in sorted(found.items()) if not name.startswith(LEFT_OUT)}


def main() -> int:
    """Write the file beside this folder; returns the exit status."""
    path = Path(__file__).resolve().parent.parent / "constraints.txt"
    lines = "".join(f"{name}=={version}\n" for name, version in closure().items())
    path.write_text(HEADER.format(python=".".join(map(str, sys.version_info[:2]))) + lines, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
