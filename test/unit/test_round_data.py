from __future__ import annotations

import numpy as np
import pytest
from adaptation_fixtures import DRIVE, TRAINING, fill_pool, open_pool, round_spec

from ssada_core.adaptation.round_data import gather
from ssada_core.data.samples import ArraySamples
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import DataError, WorkerError
from ssada_core.labels import CAMVID, IGNORE, LabelSpace
from ssada_core.learning.loaders import BatchMaker
from ssada_core.learning.training_data import TrainingData
from ssada_core.store.files import read_json, write_json
from ssada_core.store.pool import Choice
from ssada_core.store.pool_reader import PoolReader
from ssada_core.store.pool_schema import Database


@pytest.fixture
def pool(tmp_path):
    fill_pool(tmp_path / "pool", frames=10, labelled=3, audit=2)
    with open_pool(tmp_path / "pool") as opened:
        yield opened


def names(samples):
    return [samples.name(index) for index in range(len(samples))]


def test_audit_frames_are_never_trained_on(tmp_path, pool):
    queried = pool.query([Choice(pool.frames(states=["buffered"])[0].id, 0.0, True, "")])
    data = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    assert (len(data.labelled), len(data.audit), len(data.unlabelled), data.source) == (3, 2, 4, None)
    assert not set(names(data.audit)) & set(names(data.labelled) + names(data.unlabelled))
    assert f"front-{queried[0].stamp_ns}" not in names(data.unlabelled), "it will judge, once it is answered"
    assert data.audit_stamps_ns == tuple(record.stamp_ns for record in pool.frames(states=["labelled"], audit=True))
    np.testing.assert_array_equal(data.labelled.label(1), DRIVE.frame(1, "night")[1])
    assert data.unlabelled.label(0) is None


def test_the_newest_unlabelled_frames_are_taken(tmp_path, pool):
    data = gather(pool, round_spec(tmp_path, max_unlabelled=2), tmp_path, CAMVID)
    newest = pool.frames(states=["buffered"])[-2:]
    assert names(data.unlabelled) == [f"front-{record.stamp_ns}" for record in newest]


def test_the_choice_of_the_first_attempt_stays(tmp_path, pool):
    before = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    (query,) = pool.query([Choice(pool.frames(states=["buffered"])[0].id, 0.0, False, "")])
    pool.accept_label(query.query_id, DRIVE.frame(5, "night")[1], "test")
    after = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    assert names(after.labelled) == names(before.labelled)
    assert names(after.unlabelled) == names(before.unlabelled)

    corrected = np.full_like(before.labelled.label(0), 3)
    first = pool.frames(states=["labelled"])[0]
    pool.accept_label(first.query_id, corrected, "test")
    again = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    np.testing.assert_array_equal(again.labelled.label(0), corrected)


def test_a_road_that_gets_its_name_and_a_corrected_label_change_no_round_under_way(tmp_path, pool):
    records = pool.frames(states=["labelled"], audit=False)
    image_label = DRIVE.frame(0, "night")[1]
    partly = image_label.copy()
    partly[: partly.shape[0] // 2] = IGNORE
    pool.accept_label(records[0].query_id, partly, "test")

    def trainable():
        data = gather(pool, round_spec(tmp_path, training=TRAINING), tmp_path, CAMVID)
        training = TrainingData(None, data.balanced(), data.unlabelled, sparse=data.balanced_sparse())
        return data.labelled_domains, BatchMaker(training, TRAINING).sizes

    before = trainable()
    assert before == (("", "", ""), {"source": 0, "labelled": 3, "unlabelled": 6}), "five, and one labelled in parts"
    pool.accept_label(records[0].query_id, image_label, "test")  # labelled to the end
    pool.name_domain("night", since_id=records[1].id)  # and two frames in three are of a road with a name now
    assert trainable() == before, "or the trainer refuses the checkpoint of another round"

    values = read_json(tmp_path / "data.json")
    write_json(tmp_path / "data.json", {key: values[key] for key in ("labelled", "audit", "unlabelled")})
    assert trainable() == (("", "night", "night"), {"source": 0, "labelled": 4, "unlabelled": 5}), "an earlier release"


def test_an_evicted_frame_is_replaced_by_its_neighbour_so_that_a_resumed_round_goes_on(tmp_path, pool):
    before = names(gather(pool, round_spec(tmp_path), tmp_path, CAMVID).unlabelled)
    buffered = pool.frames(states=["buffered"])
    pool.purge([buffered[index].id for index in (0, 2, 4)])
    (tmp_path / "pool" / buffered[1].image_file).unlink()  # evicted between list and reading
    after = names(gather(pool, round_spec(tmp_path), tmp_path, CAMVID).unlabelled)
    assert len(before) == 5
    assert after == [before[3]] * 5
    data = gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    pool.purge([record.id for record in pool.frames()])
    assert data.unlabelled.image(4).shape == (64, 96, 3), "what was gathered needs the pool no more"


def test_a_purged_label_is_left_out_and_without_any_there_is_no_round(tmp_path, pool):
    gather(pool, round_spec(tmp_path), tmp_path, CAMVID)
    labelled = pool.frames(states=["labelled"], audit=False)
    pool.purge([labelled[0].id])
    assert len(gather(pool, round_spec(tmp_path), tmp_path, CAMVID).labelled) == 2
    pool.purge([record.id for record in labelled])
    with pytest.raises(WorkerError, match="no labelled frame to train on: answer queries first"):
        gather(pool, round_spec(tmp_path), tmp_path, CAMVID)


def test_a_damaged_list_is_said(tmp_path, pool):
    write_json(tmp_path / "data.json", ["labelled"])
    with pytest.raises(WorkerError, match=r"data\.json is damaged"):
        gather(pool, round_spec(tmp_path), tmp_path, CAMVID)


def test_a_source_pack_must_be_of_the_models_classes(tmp_path, pool):
    frames = [DRIVE.frame(index, "day") for index in range(3)]
    samples = ArraySamples([image for image, _ in frames], [label for _, label in frames])
    create_pack(samples, CAMVID, tmp_path / "pack.zip", frames=3)
    spec = round_spec(tmp_path, source_pack=str(tmp_path / "pack.zip"))
    assert len(gather(pool, spec, tmp_path, CAMVID).source) == 3

    other = LabelSpace("other", ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    create_pack(ArraySamples([frames[0][0]], [np.ones((64, 96), np.uint8)]), other, tmp_path / "b.zip", frames=1)
    with pytest.raises(DataError, match=r"b\.zip"):
        gather(pool, round_spec(tmp_path, source_pack=str(tmp_path / "b.zip")), tmp_path, CAMVID)


def test_a_second_reader_sees_what_the_writer_entered(tmp_path, pool):
    database = Database(tmp_path / "pool" / "pool.sqlite")
    reader = PoolReader(tmp_path / "pool", database)
    with pool._database.transaction(durable=False):  # the node is writing
        data = gather(reader, round_spec(tmp_path), tmp_path, CAMVID)
    database.close()
    assert len(data.labelled) == 3
