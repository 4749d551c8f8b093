"""A real Label Studio server, started here: frames and predictions go in, what was drawn comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
from annotate_fixtures import fill_pool, open_pool

from ssada_core.annotation.label_studio import LabelStudioError, LabelStudioProject, label_config
from ssada_core.errors import DataError, MissingExtraError
from ssada_core.labels import BEV, CAMVID

TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a fresh server; ``SSADA_TEST_LABEL_STUDIO`` names another executable."""
    pytest.importorskip("label_studio_sdk", reason="the SDK is not installed: pip install 'ssada_ros[labelstudio]'")
    program = os.environ.get("SSADA_TEST_LABEL_STUDIO") or shutil.which("label-studio")
    if program is None:
        pytest.skip("no Label Studio: pip install label-studio, in an environment of its own")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder = tmp_path_factory.mktemp("label_studio")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HOME": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_USERNAME": "ada@example.com",
        "LABEL_STUDIO_PASSWORD": "a-password-for-a-test",
        "LABEL_STUDIO_USER_TOKEN": TOKEN,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
    }
    command = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process, folder / "log")
        yield address
    finally:
        process.kill()
        process.wait()


def _wait(address, process, log):
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(1)
    pytest.fail(f"Label Studio did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.mark.slow
def test_frames_go_there_with_predictions_and_masks_come_back(server, tmp_path):
    from label_studio_sdk import LabelStudio

    root = tmp_path / "pool"
    first, second, third = fill_pool(root)
    with open_pool(root) as pool:
        project = LabelStudioProject(server, TOKEN, "night", CAMVID)
        assert project.push(pool) == 3
        assert project.push(pool) == 0  # they are there
        assert LabelStudioProject(server, TOKEN, "night", CAMVID).push(pool) == 0
        client = LabelStudio(base_url=server, api_key=TOKEN)
        (found,) = [each for each in client.projects.list() if each.title == "night"]
        tasks = {task.data["query_id"]: task for task in client.tasks.list(project=found.id)}
        assert set(tasks) == {first, second, third}
        # What a person would do: take the prediction over unchanged, draw something else, skip.
        (given,) = client.predictions.list(task=tasks[first].id)
        client.annotations.create(id=tasks[first].id, result=list(given.result))
        drawn = pool.prediction(pool.by_query(second))[0].copy()
        drawn[40:90, 30:100] = 8
        drawn[:10] = 255
        client.annotations.create(id=tasks[second].id, result=project._brushes(drawn))
        client.annotations.create(id=tasks[third].id, result=[], was_cancelled=True)
        results = {result.query_id: result for result in project.pull(pool)}
        assert set(results) == {first, second}
        assert results[first].status == "held"
        assert "differs from what the model predicts" in results[first].why
        assert results[second].status == "accepted"
        prediction = pool.prediction(pool.by_query(first))[0]
        assert np.array_equal(pool.read_label(pool.label_history(first)[0]), prediction)  # not a pixel was lost
        assert np.array_equal(pool.label(pool.by_query(second)), drawn)
        assert "Label Studio user" in pool.by_query(second).annotator
        assert (pool.by_query(third).state, pool.by_query(third).reason) == ("skipped", "skipped in Label Studio")
        assert project.pull(pool) == []  # nothing new
        drawn[100:120, :50] = 2
        client.annotations.create(id=tasks[second].id, result=project._brushes(drawn))
        assert [result.status for result in project.pull(pool)] == ["accepted"]  # a correction
        assert len(pool.label_history(second)) == 2
    with pytest.raises(DataError, match="has no brush"):
        LabelStudioProject(server, TOKEN, "night", BEV)
    with pytest.raises(LabelStudioError, match="401"):
        LabelStudioProject(server, "0" * 40, "night", CAMVID)


def test_the_interface_has_a_brush_for_every_class():
    config = label_config(CAMVID)
    assert config.count("<Label ") == 11
    assert '<Label value="road" background="#804080"/>' in config


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "label_studio_sdk", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ssada_ros\[labelstudio\]'"):
        LabelStudioProject("http://127.0.0.1:1", TOKEN, "x", CAMVID)


def test_a_server_that_is_not_there_is_one_line():
    pytest.importorskip("label_studio_sdk", reason="the SDK is not installed: pip install 'ssada_ros[labelstudio]'")
    with pytest.raises(LabelStudioError, match=r"127\.0\.0\.1:1"):
        LabelStudioProject("http://127.0.0.1:1", TOKEN, "x", CAMVID)
