"""The slot: exchange between two frames, whatever comes in which order; engines closed exactly once."""

from __future__ import annotations

import os
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

from ros_fixtures import make_registry

from ssada_core.errors import ModelError
from ssada_core.inference.engine import EngineSettings
from ssada_core.labels import CAMVID
from ssada_ros.model_slot import PREPARE_NICE, LoadedModel, ModelSlot, open_model


class CountingEngine:
    """An engine of which only the end matters here."""

    backend, precision, input_size = "none", "fp32", (2, 2)

    def __init__(self):
        self.closed = 0

    def infer(self, frames, *, features=False):
        raise NotImplementedError

    def close(self):
        self.closed += 1


def model(version):
    return LoadedModel(version, CountingEngine(), CAMVID, CAMVID.palette_bgr(), "")


class Loader:
    """Loads when it is let to; remembers everything it made."""

    def __init__(self):
        self.made = []
        self.asked = []
        self.fails = {}
        self.nice = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, version):
        self.asked.append(version)
        self.nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert self.gate.wait(10)
        if version in self.fails:
            raise self.fails[version]
        self.made.append(model(version))
        return self.made[-1]


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def errors():
    return []


@pytest.fixture
def slot(loader, errors):
    first = model("v1")
    loader.made.append(first)
    made = ModelSlot(first, loader, errors.append)
    yield made
    loader.gate.set()
    made.close()


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


def engines(loader):
    return {f"{made.version}#{index}": made.engine.closed for index, made in enumerate(loader.made)}


def test_the_exchange_happens_between_two_frames_and_only_there(slot, loader):
    loader.gate.clear()
    slot.request("v2")
    wait_for(lambda: loader.asked == ["v2"])
    assert slot.current().version == "v1"  # frames go on while the next one is prepared
    loader.gate.set()
    wait_for(lambda: slot._ready is not None)
    assert (slot.version, loader.made[0].engine.closed) == ("v1", 0)
    assert slot.current().version == slot.version == "v2"
    wait_for(lambda: loader.made[0].engine.closed == 1)
    assert loader.made[1].engine.closed == 0


def test_a_failed_preparation_keeps_the_old_one(slot, loader, errors):
    loader.fails = {"v2": ModelError("no weights"), "v3": ZeroDivisionError("a bug")}
    slot.request("v2")
    wait_for(lambda: errors)
    assert slot.last_error == "model v2 was not loaded, v1 stays: no weights"
    slot.request("v3")
    wait_for(lambda: len(errors) == 2)
    assert "ZeroDivisionError: a bug" in slot.last_error
    assert "Traceback" in errors[1]
    assert "Traceback" not in errors[0]
    assert slot.current().version == "v1"
    loader.fails = {}
    slot.request("v2")  # and the thread still lives
    wait_for(lambda: slot.current().version == "v2")
    assert slot.last_error == ""


def test_the_latest_request_wins(slot, loader):
    loader.gate.clear()
    slot.request("v2")
    wait_for(lambda: loader.asked == ["v2"])
    slot.request("v3")
    slot.request("v4")
    loader.gate.set()
    seen = set()
    wait_for(lambda: seen.add(slot.current().version) or "v4" in seen)
    assert seen == {"v1", "v4"}
    assert loader.asked == ["v2", "v4"]
    wait_for(lambda: engines(loader) == {"v1#0": 1, "v2#1": 1, "v4#2": 0})


def test_back_to_the_model_in_use_before_the_next_was_taken_over(slot, loader):
    slot.request("v2")
    wait_for(lambda: slot._ready is not None)
    slot.request("v1")
    wait_for(lambda: loader.made[1].engine.closed == 1)
    assert slot.current().version == "v1"
    assert engines(loader) == {"v1#0": 0, "v2#1": 1}


def test_the_version_in_use_or_ready_is_not_loaded_again(slot, loader):
    slot.request("v1")
    slot.request("v2")
    wait_for(lambda: slot._ready is not None)
    slot.request("v2")
    time.sleep(0.1)
    assert loader.asked == ["v2"]


def test_closing_frees_everything_exactly_once(loader, errors):
    first = model("v1")
    loader.made.append(first)
    slot = ModelSlot(first, loader, errors.append)
    slot.request("v2")
    wait_for(lambda: slot.current().version == "v2")
    slot.request("v3")
    wait_for(lambda: slot._ready is not None)
    loader.gate.clear()
    slot.request("v4")
    wait_for(lambda: loader.asked[-1] == "v4")
    threading.Timer(0.1, loader.gate.set).start()
    slot.close()
    assert [made.version for made in loader.made] == ["v1", "v2", "v3", "v4"]
    assert set(engines(loader).values()) == {1}
    assert not any(thread.name == "prepare-model" and thread.is_alive() for thread in threading.enumerate())


def test_many_exchanges_under_load_close_all_but_the_last(slot, loader):
    seen = []
    stop = threading.Event()

    def frames():
        while not stop.is_set():
            used = slot.current()
            assert used.engine.closed == 0  # never an engine that was freed
            seen.append(used.version)

    thread = threading.Thread(target=frames)
    thread.start()
    for number in range(2, 40):
        slot.request(f"v{number}")
        time.sleep(0.002)
    wait_for(lambda: slot.version == "v39")
    stop.set()
    thread.join(10)
    order = [int(version[1:]) for version in dict.fromkeys(seen)]
    assert order == sorted(order)
    wait_for(lambda: sum(made.engine.closed for made in loader.made) == len(loader.made) - 1)
    assert max(made.engine.closed for made in loader.made) == 1


def test_preparation_gives_way_to_frames(slot, loader):
    slot.request("v2")
    wait_for(lambda: loader.nice is not None)
    assert loader.nice >= PREPARE_NICE


@pytest.mark.skipif(os.getpriority(os.PRIO_PROCESS, 0) > PREPARE_NICE, reason="this process is nicer already")
def test_a_process_that_is_nicer_than_the_preparation_can_prepare(loader, errors):
    done = []

    def run():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PREPARE_NICE + 5)
        slot = ModelSlot(model("v1"), loader, errors.append)
        slot.request("v2")
        wait_for(lambda: slot.current().version == "v2")
        slot.close()
        done.append(loader.nice)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert done == [PREPARE_NICE + 5]


def test_a_damaged_current_model_gives_way_to_one_that_ran_before(tmp_path):
    registry = make_registry(tmp_path, seeds=(0, 1, 2, 3))
    registry.promote("v0002")
    registry.promote("v0003")  # v0004 was never let through
    torch_engine = EngineSettings(backend="torch", threads=1)
    for damaged, expected in (("v0003", "v0002"), ("v0002", "v0001")):
        (tmp_path / damaged / "weights.safetensors").write_bytes(b"damaged")
        folder, model, trouble = open_model(str(tmp_path), torch_engine, lambda _: None)
        assert (folder, model.version) == (tmp_path / expected, expected)
        assert trouble.startswith(f"{expected} runs in place of the current model: ")
        assert "v0003/weights.safetensors differs" in trouble
        slot = ModelSlot(model, Loader(), lambda _: None, trouble)
        assert slot.last_error == trouble, "shown as a warning in the diagnostics"
        slot.close()
    (tmp_path / "v0001" / "manifest.json").unlink()
    with pytest.raises(ModelError):
        open_model(str(tmp_path), torch_engine, lambda _: None)
    with pytest.raises(ModelError):  # asked for by name: nothing else will do
        open_model(f"{tmp_path}@v0003", torch_engine, lambda _: None)
