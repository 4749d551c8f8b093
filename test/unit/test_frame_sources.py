from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ssada_core.data.bags import BagFrame, write_bag
from ssada_core.data.encodings import decode_compressed, encode_jpeg, encode_png
from ssada_core.data.frame_sources import DeviceSource, FrameSource, RecordedSource, SimulatedSource, open_source
from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.errors import ConfigError, DataError, SsadaError
from ssada_core.labels import CAMVID, LabelSpace

SIZE = (48, 64)


def opened(spec: str, *, loop: bool = False, topic: str | None = None, space: LabelSpace = CAMVID) -> FrameSource:
    return open_source(spec, loop=loop, seed=4, size=SIZE, rate=5.0, label_space=space, topic=topic)


def picture(index: int) -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.dstack([x * 3 + index, y * 4, np.full_like(x, 40 * index)]).astype(np.uint8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for index in range(3):
        data = encode_jpeg(picture(index)) if index else encode_png(picture(0))
        (tmp_path / f"images/{index}.{'jpg' if index else 'png'}").write_bytes(data)
        (tmp_path / f"labels/{index}.png").write_bytes(encode_png(np.full(SIZE, index, np.uint8)))
    return tmp_path


def test_simulated_drive_goes_on_when_its_domain_changes() -> None:
    source = opened("sim:night")
    assert isinstance(source, SimulatedSource)
    assert source.has_labels
    drive = SimulatedDrive(seed=4, size=SIZE, rate=5.0)
    for index, domain in enumerate(["night", "night", "rain", "day"]):
        source.set_domain(domain)
        frame = source.next()
        image, label = drive.frame(index, domain)
        np.testing.assert_array_equal(frame.decoded(), image)
        np.testing.assert_array_equal(frame.label, label)
        assert (frame.size(), frame.frame_id, frame.jpeg) == (SIZE, "", None)
    with pytest.raises(ConfigError, match="did you mean 'rain'"):
        source.set_domain("rian")
    assert source.domain == "day"
    source.close()
    assert opened("sim").domain == "day"


def test_images_pass_jpeg_through(images: Path) -> None:
    source = opened(f"images:{images}")
    assert source.has_labels
    first, second, third = source.next(), source.next(), source.next()
    np.testing.assert_array_equal(first.image, picture(0))
    assert first.jpeg is None
    for index, frame in ((1, second), (2, third)):
        assert frame.image is None
        assert frame.jpeg == (images / f"images/{index}.jpg").read_bytes()
        assert frame.size() == SIZE
        np.testing.assert_array_equal(frame.decoded(), decode_compressed(frame.jpeg))
        assert (frame.label == index).all()
    assert source.next() is None
    assert source.next() is None
    source.close()


def test_images_without_labels_and_from_a_list(images: Path) -> None:
    assert not opened(f"images:{images / 'images'}").has_labels
    (images / "labels/0.png").unlink()
    assert opened(f"images:{images}").has_labels
    (images / "list.txt").write_text("images/2.jpg labels/2.png\n")
    frame = opened(f"images:{images / 'list.txt'}").next()
    assert (frame.label == 2).all()


def test_looping_begins_again(images: Path) -> None:
    source = opened(f"images:{images}", loop=True)
    labels = [int(source.next().label[0, 0]) for _ in range(7)]
    assert labels == [0, 1, 2, 0, 1, 2, 0]
    source.close()
    assert source.next() is None


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for index in range(5):
        writer.write(picture(index))
    writer.release()
    return path


@pytest.mark.parametrize("loop", [False, True])
def test_video(video: Path, loop: bool) -> None:
    source = opened(f"video:{video}", loop=loop)
    assert not source.has_labels
    for index in range(5):
        frame = source.next()
        assert np.abs(frame.image.astype(int) - picture(index)).mean() < 6
        assert frame.label is None
    again = source.next()
    assert (again is not None) == loop
    if loop:
        assert np.abs(again.image.astype(int) - picture(0)).mean() < 6
    source.close()
    source.close()


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    frames = [
        BagFrame(index * 10**9, "front", jpeg=encode_jpeg(picture(index)), label=np.full(SIZE, index, np.uint8))
        for index in range(3)
    ]
    write_bag(tmp_path / "bag", frames, compressed=True)
    return tmp_path / "bag"


def test_bag_loops_by_reading_again(bag: Path) -> None:
    source = opened(f"bag:{bag}", loop=True)
    assert source.has_labels
    for index in (0, 1, 2, 0, 1):
        frame = source.next()
        assert frame.image is None
        assert frame.jpeg == encode_jpeg(picture(index))
        assert (frame.label == index).all()
        assert frame.frame_id == "front"
    source.close()
    once = opened(f"bag:{bag}/bag.mcap", topic="/camera/image/compressed")
    assert [once.next() is None for _ in range(4)] == [False, False, False, True]


def test_bag_labels_are_class_ids(bag: Path) -> None:
    mapped = replace(CAMVID, id_map={0: 5}, ignored_ids=frozenset({255}))
    source = opened(f"bag:{bag}", space=mapped)
    assert [int(source.next().label[0, 0]) for _ in range(3)] == [0, 1, 2]
    two = LabelSpace("two", ("road", "rest"), ((0, 0, 0), (1, 1, 1)))
    source = opened(f"bag:{bag}", space=two)
    source.next(), source.next()
    with pytest.raises(DataError, match="class id 2 is not in label space 'two'"):
        source.next()


def open_files() -> set[str]:
    return {str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed by /proc")
def test_closing_lets_go_of_files(bag: Path, video: Path) -> None:
    for spec, file in ((f"bag:{bag}", bag / "bag.mcap"), (f"video:{video}", video)):
        source = opened(spec, loop=True)
        source.next()
        assert str(file) in open_files()
        source.close()
        assert str(file) not in open_files()


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(DataError, match="nothing has no frames"):
        RecordedSource(lambda: iter(()), what="nothing", loop=True)


def test_wrong_sources(tmp_path: Path, bag: Path, images: Path) -> None:
    (tmp_path / "not.mp4").write_bytes(b"not a video" * 100)
    (tmp_path / "empty").mkdir()
    cases = [
        ("vidoe:x.mp4", "did you mean 'video'"),
        ("drive.mp4", "there are: bag, device, images, sim, video"),
        ("", "is no scheme"),
        ("video:", "names nothing"),
        ("device", "names nothing"),
        ("device:front", "needs a number"),
        ("device:97", "no camera 97"),
        ("sim:fog", "unknown domain 'fog'"),
        (f"video:{tmp_path}/none.mp4", "is not there"),
        (f"video:{tmp_path}/not.mp4", "cannot be read"),
        (f"bag:{tmp_path}/none", "does not exist"),
        (f"bag:{images}", "no metadata.yaml"),
        (f"images:{tmp_path}/none", "is not there"),
        (f"images:{tmp_path}/empty", "has no images"),
    ]
    for spec, message in cases:
        with pytest.raises(SsadaError, match=message) as caught:
            opened(spec)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"no topic /front.*/camera/image/compressed \(sensor_msgs"):
        opened(f"bag:{bag}", topic="/front")


def test_simulated_labels_fit_only_their_space() -> None:
    two = LabelSpace("two", ("road", "rest"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(DataError, match="'camvid', not 'two'"):
        opened("sim", space=two)


@pytest.mark.skipif(not os.path.exists("/dev/video0"), reason="this machine has no camera")  # noqa: PTH110
def test_device() -> None:
    source = DeviceSource(0, size=(480, 640), rate=30.0)
    assert source.next().image.ndim == 3
    source.close()
