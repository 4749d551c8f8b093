"""Fixtures for all layers of tests."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser_fixtures import browser, watched_page  # noqa: F401  (fixtures for every test)

# One thread each: the machines are shared and OpenMP on busy cores is at times ten times slower than one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when the first message class is imported; off by default since Jazzy.
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
# Tests of the repository itself run from the source tree, also when another copy is installed.
sys.path.insert(0, str(REPOSITORY))


@pytest.fixture(scope="session")
def camvid() -> Path:
    """Folder with the real CamVid frames, or a skip that says why."""
    path = REPOSITORY.parent / "shared" / "data" / "camvid"
    if not (path / "dusk_pool.txt").exists():
        pytest.skip("the real frames are not there: ../shared/data/camvid")
    return path


# Above 101 the ports of a domain reach into the range that Linux hands out to other sockets. From 20 to 99 are those of
# which a demo or replay that somebody runs beside the tests takes one at random (``ssada_ros.demo.DEMO_DOMAIN_RANGE``).
_ROS_DOMAINS = (*range(1, 20), 100, 101)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A ROS domain that no other test on this machine uses, on this host only, with the product's Fast DDS profile.

    Sets the environment, which children inherit; nodes in this process need their own ``rclpy.init`` after it.
    """
    pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")
    from ssada_ros.processes import environment

    with _claimed_domain() as domain:
        changes = {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOCALHOST_ONLY": "1" if os.environ.get("ROS_DISTRO") == "humble" else "0",
            "ROS_LOG_DIR": str(tmp_path / "ros_log"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
        }
        for name, value in environment({**os.environ, **changes}).items():
            monkeypatch.setenv(name, value)
        yield domain


@contextmanager
def _claimed_domain() -> Iterator[int]:
    """Lock a domain's file: also tests of another checkout, or of another worker, keep away from it."""
    first = os.getpid() % len(_ROS_DOMAINS)
    for domain in (*_ROS_DOMAINS[first:], *_ROS_DOMAINS[:first]):
        with (Path(tempfile.gettempdir()) / f"ros_domain_{domain}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    pytest.fail("all ROS domains are in use by other tests")
