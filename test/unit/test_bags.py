from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from ssada_core.data import bags
from ssada_core.data.bag_samples import BagSamples
from ssada_core.data.bags import START_NS, BagFrame, bag_info, create_bag, read_bag, write_bag
from ssada_core.data.encodings import decode_compressed, encode_jpeg, encode_png
from ssada_core.data.lists import DirectorySamples, ListSamples
from ssada_core.data.samples import ArraySamples
from ssada_core.errors import BagError, DataError, LabelError
from ssada_core.labels import CAMVID

RNG = np.random.default_rng(5)
SECOND = 1_000_000_000
TYPES = get_typestore(Stores.ROS2_HUMBLE)
QOS = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.BEST_EFFORT,
    durability=QosDurability.VOLATILE,
    deadline=QosTime(0, 0),
    lifespan=QosTime(0, 0),
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=QosTime(0, 0),
    avoid_ros_namespace_conventions=False,
)
STORAGES = ["mcap", "sqlite3"]


def make_frames(count: int, *, labelled=lambda index: True, jpeg: bool = False) -> list[BagFrame]:
    frames = []
    for index in range(count):
        image = np.full((12, 16, 3), (index, 2 * index, 200), np.uint8)
        image[index % 12] = 255
        frames.append(
            BagFrame(
                stamp_ns=7 * SECOND + index * 123_456_789,
                frame_id="front",
                image=None if jpeg else image,
                jpeg=encode_jpeg(image, 80) if jpeg else None,
                label=np.full((12, 16), index % 11, np.uint8) if labelled(index) else None,
            )
        )
    return frames


def same(left: np.ndarray | None, right: np.ndarray | None) -> bool:
    return (left is None) == (right is None) and (left is None or np.array_equal(left, right))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_round_trip(tmp_path: Path, storage: str, compressed: bool) -> None:
    frames = make_frames(30, labelled=lambda index: index % 3 != 1, jpeg=compressed)
    assert write_bag(tmp_path / "bag", iter(frames), compressed=compressed, storage=storage) == 30
    back = list(read_bag(tmp_path / "bag"))
    assert [frame.stamp_ns for frame in back] == [frame.stamp_ns for frame in frames]
    assert {frame.frame_id for frame in back} == {"front"}
    for got, wrote in zip(back, frames, strict=True):
        assert got.jpeg == wrote.jpeg  # byte for byte
        assert same(got.image, wrote.image)
        assert same(got.label, wrote.label)
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_are_what_the_contract_says(tmp_path: Path, storage: str) -> None:
    frames = make_frames(2)
    write_bag(tmp_path / "bag", frames, compressed=False, storage=storage)
    with AnyReader([tmp_path / "bag"]) as reader:  # an independent reading of the same bytes
        seen = [(c.topic, time, reader.deserialize(raw, c.msgtype)) for c, time, raw in reader.messages()]
    assert [(topic, time) for topic, time, _ in seen] == [
        (topic, frame.stamp_ns) for frame in frames for topic in ("/camera/image", "/camera/label")
    ]
    for topic, time, message in seen:
        assert message.header.stamp.sec * SECOND + message.header.stamp.nanosec == time
        assert (message.height, message.width, message.is_bigendian) == (12, 16, 0)
        assert (message.encoding, message.step) == (("bgr8", 48) if topic.endswith("image") else ("mono8", 16))
    metadata = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 8
    assert metadata["storage_identifier"] == storage


READ_WITH_ROS = """
import json, sys
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
kinds = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
for line in sys.stdin:
    kind, raw = line.split()
    message = deserialize_message(bytes.fromhex(raw), kinds[kind])
    stamp = message.header.stamp
    shape = [getattr(message, key, None) for key in ("height", "width", "step", "encoding", "format")]
    print(json.dumps([stamp.sec, stamp.nanosec, message.header.frame_id, shape, bytes(message.data).hex()]))
"""


@pytest.mark.ros
@pytest.mark.parametrize("compressed", [False, True])
def test_ros_itself_understands_the_messages(tmp_path: Path, compressed: bool) -> None:
    if importlib.util.find_spec("rclpy") is None or importlib.util.find_spec("sensor_msgs") is None:
        pytest.skip("rclpy is not installed")
    frame = make_frames(1, jpeg=compressed)[0]
    write_bag(tmp_path / "bag", [frame], compressed=compressed)
    with AnyReader([tmp_path / "bag"]) as reader:
        lines = "".join(f"{c.msgtype} {bytes(raw).hex()}\n" for c, _, raw in reader.messages())
    child = subprocess.run(
        [sys.executable, "-c", READ_WITH_ROS], input=lines, capture_output=True, text=True, check=True, timeout=60
    )
    picture, label = [json.loads(line) for line in child.stdout.splitlines()]
    shape = [None, None, None, None, "jpeg"] if compressed else [12, 16, 48, "bgr8", None]
    data = frame.jpeg if compressed else frame.image.tobytes()
    assert picture == [7, 0, "front", shape, data.hex()]
    assert label == [7, 0, "front", [12, 16, 16, "mono8", None], frame.label.tobytes().hex()]


def test_raw_frames_are_encoded_and_jpeg_decoded_as_asked(tmp_path: Path) -> None:
    raw, jpeg = make_frames(1)[0], make_frames(1, jpeg=True)[0]
    write_bag(tmp_path / "a", [raw], compressed=True)
    assert next(read_bag(tmp_path / "a")).jpeg == encode_jpeg(raw.image)
    write_bag(tmp_path / "b", [jpeg], compressed=False)
    assert same(next(read_bag(tmp_path / "b")).image, decode_compressed(jpeg.jpeg))


@pytest.mark.parametrize("storage", STORAGES)
def test_info(tmp_path: Path, storage: str) -> None:
    frames = make_frames(5, labelled=lambda index: index > 1, jpeg=True)
    write_bag(tmp_path / "bag", frames, compressed=True, storage=storage)
    info = bag_info(tmp_path / "bag")
    assert {(t.name, t.type, t.count) for t in info.topics} == {
        ("/camera/image/compressed", "sensor_msgs/msg/CompressedImage", 5),
        ("/camera/label", "sensor_msgs/msg/Image", 3),
    }
    assert (info.count, info.storage) == (8, storage)
    assert (info.start_ns, info.end_ns) == (frames[0].stamp_ns, frames[-1].stamp_ns)
    assert info.duration_s == pytest.approx(4 * 0.123456789)


@pytest.mark.parametrize("suffix", ["mcap", "db3"])
def test_a_single_storage_file_is_a_bag_too(tmp_path: Path, suffix: str) -> None:
    write_bag(tmp_path / "bag", make_frames(3), compressed=False, storage="mcap" if suffix == "mcap" else "sqlite3")
    file = tmp_path / f"bag/bag.{suffix}"
    assert len(list(read_bag(file))) == 3
    assert bag_info(file).storage == ("mcap" if suffix == "mcap" else "sqlite3")


def foreign_bag(path: Path, messages: list[tuple[str, int, object]], storage=StoragePlugin.MCAP) -> Path:
    """A bag as somebody else's recorder writes it."""
    with Writer(path, version=9, storage_plugin=storage) as writer:
        topics = {}
        for topic, time, message in messages:
            kind = message.__msgtype__
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            writer.write(topics[topic], time, TYPES.serialize_cdr(message, kind))
    return path


def header(stamp: int):
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id="cam")


def image(stamp: int, rows: np.ndarray, encoding: str, width: int, **changes):
    values = {
        "header": header(stamp),
        "height": rows.shape[0],
        "width": width,
        "encoding": encoding,
        "is_bigendian": 0,
        "step": rows.shape[1],
        "data": rows.reshape(-1),
    }
    return TYPES.types["sensor_msgs/msg/Image"](**{**values, **changes})


def text(value: str):
    return TYPES.types["std_msgs/msg/String"](data=value)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_foreign_bag_with_late_and_swapped_labels(tmp_path: Path, storage) -> None:
    """Labels recorded much later than their frames, one missing, two swapped, one for no frame at all."""
    rows = np.zeros((4, 20), np.uint8)  # rgb8, 5 bytes padding: the first byte of a pixel is red
    rows[:, :15] = np.tile([200, 100, 50], 5)
    stream = [("/cam/front", 10 * k + 100, image(1000 + k, rows, "rgb8", 5)) for k in range(5)]
    ids = {0: 900, 2: 901, 1: 902, 4: 903}
    stream += [
        ("/cam/label", time, image(1000 + k, np.full((4, 5), k, np.uint8), "mono8", 5)) for k, time in ids.items()
    ]
    stream += [("/cam/label", 899, image(900, np.zeros((4, 5), np.uint8), "mono8", 5)), ("/rosout", 5, text("hello"))]
    path = foreign_bag(tmp_path / "bag", stream, storage)
    frames = list(read_bag(path))
    assert [frame.stamp_ns for frame in frames] == [1000, 1001, 1002, 1003, 1004]
    assert all((frame.image == (50, 100, 200)).all() for frame in frames)
    assert [None if frame.label is None else int(frame.label[0, 0]) for frame in frames] == [0, 1, 2, None, 4]
    assert frames[0].image.flags.writeable


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_topic_of_two_publishers(tmp_path: Path, storage) -> None:
    grey = np.zeros((2, 2), np.uint8)
    with Writer(tmp_path / "bag", version=9, storage_plugin=storage) as writer:
        for start, profiles in ((0, ()), (1, (QOS,))):
            kind = "sensor_msgs/msg/Image"
            connection = writer.add_connection("/i", kind, typestore=TYPES, offered_qos_profiles=profiles)
            for stamp in range(start, 6, 2):
                writer.write(connection, stamp, TYPES.serialize_cdr(image(stamp, grey, "mono8", 2), kind))
    assert [frame.stamp_ns for frame in read_bag(tmp_path / "bag")] == list(range(6))
    samples = BagSamples(tmp_path / "bag", CAMVID)
    assert [samples.name(index) for index in range(len(samples))] == list("012345")


def test_topics_are_found_by_type_or_named(tmp_path: Path) -> None:
    grey = np.zeros((2, 2), np.uint8)
    stream = [
        ("/left/image", 1, image(1, grey, "mono8", 2)),
        ("/right/image", 1, image(2, grey, "mono8", 2)),
        ("/left/mask", 1, image(1, grey, "mono8", 2)),
        ("/chatter", 1, text("x")),
    ]
    path = foreign_bag(tmp_path / "bag", stream)
    with pytest.raises(BagError, match=r"several topics with images \(/left/image, /right/image\): name one"):
        next(read_bag(path))
    frame = next(read_bag(path, topic="/left/image", label_topic="/left/mask"))
    assert (frame.stamp_ns, frame.label.shape) == (1, (2, 2))
    with pytest.raises(BagError, match=r"no topic /left/imag .did you mean '/left/image'.*/chatter \(std_msgs/msg/S"):
        next(read_bag(path, topic="/left/imag"))
    with pytest.raises(BagError, match=r"no topic /none"):
        next(read_bag(path, topic="/left/image", label_topic="/none"))
    with pytest.raises(BagError, match=r"topic /chatter is std_msgs/msg/String"):
        next(read_bag(path, topic="/chatter"))
    bare = foreign_bag(tmp_path / "bare", [("/chatter", 1, text("x"))])
    with pytest.raises(BagError, match=r"no topic with images; it has /chatter"):
        next(read_bag(bare))


def test_wrong_messages_in_a_bag(tmp_path: Path) -> None:
    grey = np.zeros((4, 4), np.uint8)
    short = foreign_bag(tmp_path / "short", [("/i", 1, image(1, grey, "mono8", 4, height=9))])
    with pytest.raises(BagError, match="36 bytes needed, 16 came"):
        list(read_bag(short))
    colour = [("/i", 1, image(1, grey, "mono8", 4)), ("/label", 1, image(1, grey, "bgr8", 1))]
    with pytest.raises(BagError, match="does not carry class ids"):
        list(read_bag(foreign_bag(tmp_path / "colour", colour)))
    make = TYPES.types["sensor_msgs/msg/CompressedImage"]
    junk = make(header=header(1), format="jpeg", data=np.zeros(9, np.uint8))
    with pytest.raises(BagError, match="neither JPEG nor PNG"):
        list(read_bag(foreign_bag(tmp_path / "junk", [("/i", 1, junk)])))
    png = make(header=header(1), format="png", data=np.frombuffer(encode_png(grey), np.uint8))
    assert next(read_bag(foreign_bag(tmp_path / "png", [("/i", 1, png)]))).image.shape == (4, 4, 3)


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[BagFrame]:
        yield from make_frames(3)
        raise DataError("frame 3 is gone")

    with pytest.raises(DataError, match="frame 3 is gone"):
        write_bag(tmp_path / "bag", failing(), compressed=False)
    with pytest.raises(BagError, match="no frames"):
        write_bag(tmp_path / "bag", [], compressed=False)
    with pytest.raises(BagError, match="neither an image nor JPEG"):
        write_bag(tmp_path / "bag", [BagFrame(1, "x")], compressed=False)
    with pytest.raises(BagError, match="cannot be written"):
        write_bag(tmp_path / "bag", [BagFrame(-1, "x", make_frames(1)[0].image)], compressed=False)
    wrong = make_frames(1)[0]
    wrong.label = np.zeros((12, 16), np.int64)
    with pytest.raises(BagError, match="int64"):
        write_bag(tmp_path / "bag", [wrong], compressed=False)
    with pytest.raises(BagError, match="storage 'zip'"):
        write_bag(tmp_path / "bag", make_frames(1), compressed=False, storage="zip")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match="exists already"):
        write_bag(tmp_path / "bag", make_frames(1), compressed=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot be written"):
        write_bag(tmp_path / "file/bag", make_frames(1), compressed=False)


def test_bags_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="does not exist"):
        bag_info(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"no metadata.yaml.*reindex"):
        next(read_bag(tmp_path / "empty"))
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(BagError, match="cannot be opened"):
        bag_info(tmp_path / "x.txt")
    write_bag(tmp_path / "bag", make_frames(1), compressed=False)
    (tmp_path / "bag/metadata.yaml").write_text("- what\n: [")
    with pytest.raises(BagError) as caught:
        bag_info(tmp_path / "bag")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("storage", "file"), [("mcap", "bag.mcap"), ("sqlite3", "bag.db3")])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(tmp_path: Path, storage: str, file: str, share: float) -> None:
    write_bag(tmp_path / "bag", make_frames(40), compressed=False, storage=storage)
    data = (tmp_path / "bag" / file).read_bytes()
    (tmp_path / "bag" / file).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BagError) as caught:
        list(read_bag(tmp_path / "bag"))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("valid")
    for storage in STORAGES:
        write_bag(folder / storage, make_frames(4, jpeg=True), compressed=True, storage=storage)
    return {"mcap": folder / "mcap/mcap.mcap", "sqlite3": folder / "sqlite3/sqlite3.db3"}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), storage=st.sampled_from(STORAGES))
def test_damage_only_raises_bag_errors(valid, tmp_path: Path, data, storage: str) -> None:
    raw = bytearray(valid[storage].read_bytes())
    size = len(raw)
    spots = st.integers(0, size - 1) | st.integers(max(0, size - 2500), size - 1) | st.integers(0, 3000)
    for position, value in data.draw(st.lists(st.tuples(spots, st.integers(0, 255)), min_size=1, max_size=6)):
        raw[min(position, size - 1)] = value
    path = tmp_path / valid[storage].name
    path.write_bytes(raw)
    try:
        for frame in read_bag(path):
            assert frame.jpeg is not None or frame.image is not None
    except BagError as error:
        assert "\n" not in str(error)  # noqa: PT017


def arrays() -> ArraySamples:
    frames = make_frames(4, labelled=lambda index: index != 2)
    return ArraySamples([frame.image for frame in frames], [frame.label for frame in frames])


@pytest.mark.parametrize("storage", STORAGES)
def test_create_and_samples(tmp_path: Path, storage: str) -> None:
    told = []
    samples = arrays()
    out = tmp_path / "new/bag"
    count = create_bag(samples, out, rate=4.0, compressed=False, storage=storage, progress=lambda *a: told.append(a))
    assert count == 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [frame.stamp_ns for frame in read_bag(out)] == [START_NS + k * 250_000_000 for k in range(4)]
    back = BagSamples(out, CAMVID)
    assert len(back) == 4
    for index in (3, 0, 2, 1):  # in any order
        assert same(back.image(index), samples.image(index))
        assert same(back.label(index), samples.label(index))
        assert back.jpeg(index) is None
    assert back.name(1) == str(START_NS + 250_000_000)
    back.close()


def test_create_refuses_odd_rates(tmp_path: Path) -> None:
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BagError, match="positive rate"):
            create_bag(arrays(), tmp_path / "bag", rate=rate)


def test_samples_of_a_bag_check_labels(tmp_path: Path) -> None:
    frame = make_frames(1)[0]
    frame.label = np.full((12, 16), 77, np.uint8)
    write_bag(tmp_path / "ids", [frame], compressed=False)
    with pytest.raises(LabelError, match="class id 77"):
        BagSamples(tmp_path / "ids", CAMVID).label(0)
    frame.label = np.zeros((3, 4), np.uint8)
    write_bag(tmp_path / "size", [frame], compressed=False)
    with pytest.raises(DataError, match="4x3 but the image is 16x12"):
        BagSamples(tmp_path / "size", CAMVID).label(0)


@pytest.mark.shared_data
@pytest.mark.parametrize("storage", STORAGES)
def test_real_frames_pass_through_untouched(camvid: Path, tmp_path: Path, storage: str) -> None:
    (tmp_path / "few.txt").write_text("".join((camvid / "dusk_val.txt").read_text().splitlines(True)[:3]))
    samples = DirectorySamples(camvid / "images", camvid / "labels", CAMVID, list_file=tmp_path / "few.txt")
    create_bag(samples, tmp_path / "bag", rate=1.0, compressed=True, storage=storage)
    listed = ListSamples(camvid / "dusk_val.txt", CAMVID)
    for index, frame in enumerate(read_bag(tmp_path / "bag")):
        assert frame.jpeg == (camvid / listed.name(index)).read_bytes()
        assert same(frame.label, listed.label(index))
    assert index == 2


def test_few_labels_are_held_at_a_time(tmp_path: Path) -> None:
    frames = make_frames(200)
    write_bag(tmp_path / "bag", frames, compressed=False)
    with bags._labels(tmp_path / "bag", None) as label_of:
        assert label_of(1) is None  # a frame before all labels
        assert len(label_of.__self__._kept) == bags._LABELS_KEPT
        assert same(label_of(frames[150].stamp_ns), frames[150].label)
        assert len(label_of.__self__._kept) < bags._LABELS_KEPT
