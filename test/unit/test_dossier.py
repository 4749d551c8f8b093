"""The change dossier of a version: everything there is to know, also where parts of it have gone."""

from __future__ import annotations

import json
import shutil

import pytest
from adaptation_fixtures import fill_pool, make_registry, manifest, measurements, open_pool, round_spec
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from ssada_core.adaptation.dossier import Dossier, build_dossier, render
from ssada_core.adaptation.gate import GateSettings, decide
from ssada_core.adaptation.round import DATA_FILE, RESULT_FILE, write_round
from ssada_core.cli import app
from ssada_core.errors import ModelError
from ssada_core.labels import CAMVID
from ssada_core.store.files import write_json
from ssada_core.store.pool import DATABASE_FILE


@pytest.fixture
def registry(tmp_path):
    """Version 2 was trained by a round on the pool's labels, judged, and promoted."""
    made = make_registry(tmp_path / "registry")
    fill_pool(tmp_path / "pool", frames=8, labelled=4, audit=2)
    with open_pool(tmp_path / "pool") as pool:
        spec = round_spec(tmp_path, pool=pool.pool_id)
    run_dir = tmp_path / "rounds of a car" / "round-0001"
    write_round(run_dir, spec)
    write_json(run_dir / DATA_FILE, {"labelled": [1, 2, 3, 4], "audit": [5, 6], "unlabelled": [7, 8]})
    write_json(run_dir / RESULT_FILE, {})
    known = manifest(parent="v0001").model_copy(
        update={
            "data": {"labelled": 4, "pool": str(tmp_path / "pool")},
            "training": {"command": f"python -m ssada_core.adaptation.worker {run_dir}", "reason": "6 <new> labels"},
        }
    )
    made.add(made.load_weights("v0001"), known)
    decision = decide(measurements(), GateSettings(), CAMVID).model_dump(mode="json")
    made.promote("v0002", {"version": "v0002", "champion": "v0001", **decision})
    return made


def test_a_dossier_tells_data_labels_figures_decision_and_hashes(registry):
    dossier = build_dossier(registry, "v0002")
    assert (dossier.parent, dossier.current, dossier.missing) == ("v0001", True, [])
    assert [label.use for label in dossier.labels] == ["labelled"] * 4 + ["audit"] * 2
    assert all(label.given == [f"accepted labels/{label.query_id}.v1.png"] for label in dossier.labels)
    assert dossier.decision["verdict"] == "promote"
    figures = dossier.decision["domains"]["target"]
    assert figures["frames"] == 12
    assert set(figures["iou"]) == set(CAMVID.classes)
    assert [entry["action"] for entry in dossier.history] == ["promote"]
    assert set(dossier.files) == {"weights.safetensors"}
    assert dossier.verified == "every file is as in the manifest"
    page = render(dossier)
    assert "6 &lt;new&gt; labels" in page, "nothing from outside becomes markup"
    for words in ("Decision: promote", "pedestrian", dossier.files["weights.safetensors"], "source pack"):
        assert words in page


def test_what_has_gone_is_said(registry, tmp_path):
    with open_pool(tmp_path / "pool") as pool:
        pool.purge([1])
    assert build_dossier(registry, "v0002").missing == ["1 of its labels were purged, rejected or held since"]
    shutil.rmtree(tmp_path / "rounds of a car")
    (tmp_path / "registry" / "v0002" / "weights.safetensors").write_bytes(b"other")
    dossier = build_dossier(registry, "v0002")
    assert dossier.labels == []
    assert "there is no such file" in dossier.missing[0]
    assert dossier.verified.startswith("damaged: ")
    first = build_dossier(registry, "v0001")
    assert first.decision is None
    assert any("the first model" in words for words in first.missing)
    assert "Why v0001" in render(first)
    with pytest.raises(ModelError, match="v0009"):
        build_dossier(registry, "v0009")


def test_the_labels_of_another_pool_are_not_taken_for_its_own(registry, tmp_path):
    pool = tmp_path / "pool"
    shutil.rmtree(pool)
    fill_pool(pool, frames=8, labelled=4, audit=2)
    dossier = build_dossier(registry, "v0002")
    assert dossier.labels == []
    assert dossier.missing == [f"its labels are not listed: the pool at {pool} is another one now"]
    write_round(tmp_path / "rounds of a car" / "round-0001", round_spec(tmp_path))
    assert len(build_dossier(registry, "v0002").labels) == 6, "a round that does not say its pool is believed"


def test_a_pool_that_has_gone_is_said_and_not_made_anew(registry, tmp_path):
    file = tmp_path / "pool" / DATABASE_FILE
    for each in file.parent.glob(f"{DATABASE_FILE}*"):
        each.unlink()
    dossier = build_dossier(registry, "v0002")
    assert dossier.labels == []
    assert dossier.missing == [f"its labels are not listed: the pool at {file.parent} has gone"]
    assert not file.exists()


def test_the_command_writes_the_page_and_json_by_its_schema(registry, tmp_path):
    page, file = tmp_path / "why.html", tmp_path / "why.json"
    arguments = ["models", "why", str(registry.root), "v0002", "--html", str(page), "--json", str(file)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(file.read_text())
    Draft202012Validator(Dossier.model_json_schema()).validate(values)
    assert values["version"] == "v0002"
    assert page.read_text().startswith("<!doctype html>")
