from __future__ import annotations

import array
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssada_core.data.encodings import (
    ENCODINGS,
    decode_compressed,
    decode_label,
    encode_jpeg,
    encode_png,
    sniff,
    to_bgr,
    to_label,
)
from ssada_core.errors import EncodingError

RNG = np.random.default_rng(7)
H, W = 6, 8
BGR = RNG.integers(0, 256, (H, W, 3), np.uint8)
GREY = RNG.integers(0, 256, (H, W), np.uint8)


def pack(rows: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Rows of raw bytes with `padding` junk bytes after each; returns data and step."""
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(rows.shape[0], -1)
    junk = np.full((rows.shape[0], padding), 0xA5, np.uint8)
    return np.hstack([flat, junk]).tobytes(), flat.shape[1] + padding


def attempt(function, *args, **kwargs):
    """The result, or None and the one error that is allowed."""
    try:
        return function(*args, **kwargs), ""
    except EncodingError as error:
        return None, str(error)


def grey3(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[..., None], 3, axis=2)


def alpha(colours: np.ndarray) -> np.ndarray:
    return np.dstack([colours, np.full(colours.shape[:2], 9, np.uint8)])


EIGHT_BIT = {
    "bgr8": (BGR, BGR),
    "8UC3": (BGR, BGR),
    "rgb8": (BGR[..., ::-1], BGR),
    "bgra8": (alpha(BGR), BGR),
    "8UC4": (alpha(BGR), BGR),
    "rgba8": (alpha(BGR[..., ::-1]), BGR),
    "mono8": (GREY, grey3(GREY)),
    "8UC1": (GREY, grey3(GREY)),
}
SIXTEEN_BIT = {
    "mono16": "mono8",
    "16UC1": "8UC1",
    "bgr16": "bgr8",
    "rgb16": "rgb8",
    "bgra16": "bgra8",
    "rgba16": "rgba8",
    "16UC3": "8UC3",
    "16UC4": "8UC4",
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", EIGHT_BIT)
def test_eight_bit(encoding: str, padding: int) -> None:
    rows, expected = EIGHT_BIT[encoding]
    data, step = pack(rows, padding)
    image = to_bgr(data, encoding=encoding, height=H, width=W, step=step)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", SIXTEEN_BIT)
def test_sixteen_bit_keeps_the_high_byte(encoding: str, padding: int, big: bool) -> None:
    rows, expected = EIGHT_BIT[SIXTEEN_BIT[encoding]]
    low = RNG.integers(0, 256, rows.shape).astype(np.uint16)
    values = (rows.astype(np.uint16) << 8 | low).astype(">u2" if big else "<u2")
    data, step = pack(values, padding)
    image = to_bgr(data, encoding=encoding, height=H, width=W, step=step, is_bigendian=big)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_float_is_stretched_over_its_finite_range(padding: int, big: bool) -> None:
    values = np.array([[1.0, 2.0, 3.0], [np.nan, np.inf, 2.5]], ">f4" if big else "<f4")
    data, step = pack(values, padding)
    image = to_bgr(data, encoding="32FC1", height=2, width=3, step=step, is_bigendian=big)
    np.testing.assert_array_equal(image, grey3(np.array([[0, 128, 255], [0, 0, 191]], np.uint8)))


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan])
def test_constant_float_is_black(value: float) -> None:
    data = np.full((2, 2), value, "<f4").tobytes()
    assert not to_bgr(data, encoding="32FC1", height=2, width=2, step=8).any()


@pytest.mark.parametrize("extremes", [(-3e38, 3e38), (0.0, 1e-44), (1e6, 1e6 + 0.5), (-1e-20, 1e-20)])
def test_float_of_extreme_range(extremes: tuple[float, float]) -> None:
    values = np.array([extremes], "<f4")
    image = to_bgr(values.tobytes(), encoding="32FC1", height=1, width=2, step=8)
    np.testing.assert_array_equal(image[0, :, 0], [0, 255])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_of_a_single_colour(pattern: str, padding: int, bits: int) -> None:
    colour = {"r": 200, "g": 100, "b": 50}
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]], np.uint8)
    mosaic = np.tile(tile, (4, 5))
    values = mosaic if bits == 8 else (mosaic.astype("<u2") << 8 | 0x33).astype("<u2")
    data, step = pack(values, padding)
    image = to_bgr(data, encoding=f"bayer_{pattern}{bits}", height=8, width=10, step=step)
    assert (image == (50, 100, 200)).all()


def yuv_to_bgr(y: float, u: float, v: float) -> np.ndarray:
    """BT.601 limited range, from the standard's figures."""
    luma, u, v = 255 / 219 * (float(y) - 16), float(u) - 128, float(v) - 128
    kr, kb, kg = 0.299, 0.114, 0.587
    chroma = 255 / 224
    red, blue = luma + 2 * (1 - kr) * chroma * v, luma + 2 * (1 - kb) * chroma * u
    green = luma - 2 * kb * (1 - kb) / kg * chroma * u - 2 * kr * (1 - kr) / kg * chroma * v
    return np.clip(np.rint([blue, green, red]), 0, 255)


Y = RNG.integers(60, 180, (H, W), np.uint8)
U, V = RNG.integers(100, 156, (2, H, W // 2), np.uint8)


def interleave(order: str) -> np.ndarray:
    planes = {"y": Y[:, 0::2], "Y": Y[:, 1::2], "u": U, "v": V}
    return np.stack([planes[letter] for letter in order], axis=2).reshape(H, 2 * W)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvY"), ("uyvy", "uyvY"), ("yuv422_yuy2", "yuYv"), ("yuyv", "yuYv")]
)
def test_yuv422(encoding: str, order: str, padding: int) -> None:
    data, step = pack(interleave(order), padding)
    image = to_bgr(data, encoding=encoding, height=H, width=W, step=step)
    expected = [[yuv_to_bgr(Y[r, c], U[r, c // 2], V[r, c // 2]) for c in range(W)] for r in range(H)]
    assert np.abs(image.astype(int) - np.array(expected)).max() <= 2


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("encoding", "first"), [("nv12", "u"), ("nv21", "v")])
def test_two_plane_yuv420(encoding: str, first: str, padding: int) -> None:
    u, v = U[: H // 2], V[: H // 2]
    chroma = np.stack([u, v] if first == "u" else [v, u], axis=2).reshape(H // 2, W)
    data, step = pack(np.vstack([Y, chroma]), padding)
    image = to_bgr(data, encoding=encoding, height=H, width=W, step=step)
    expected = [[yuv_to_bgr(Y[r, c], u[r // 2, c // 2], v[r // 2, c // 2]) for c in range(W)] for r in range(H)]
    assert np.abs(image.astype(int) - np.array(expected)).max() <= 2


def test_every_encoding_is_tested() -> None:
    bayer = {f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)}
    yuv = {"yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"}
    assert set(ENCODINGS) == set(EIGHT_BIT) | set(SIXTEEN_BIT) | bayer | yuv | {"32FC1"}


@pytest.mark.parametrize("padding", [0, 4])
def test_bgr8_is_a_view(padding: int) -> None:
    data, step = pack(BGR, padding)
    buffer = array.array("B", data)  # what rclpy hands over
    image = to_bgr(buffer, encoding="bgr8", height=H, width=W, step=step)
    assert np.shares_memory(image, np.frombuffer(buffer, np.uint8))
    buffer[2] ^= 0xFF
    assert image[0, 0, 2] == buffer[2]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda raw: array.array("B", raw)])
def test_any_buffer(wrap) -> None:
    data, step = pack(BGR[..., ::-1], 0)
    np.testing.assert_array_equal(to_bgr(wrap(data), encoding="rgb8", height=H, width=W, step=step), BGR)


def test_last_row_may_lack_its_padding() -> None:
    data, step = pack(BGR, 4)
    np.testing.assert_array_equal(to_bgr(data[:-4], encoding="bgr8", height=H, width=W, step=step), BGR)


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "message"),
    [
        ("bgr8", 6, 8, 24, "143"),
        ("bgr8", 6, 8, 23, "a row needs 24 bytes"),
        ("bgr8", 0, 8, 24, "smallest size"),
        ("bgr8", 6, -1, 24, "smallest size"),
        ("bgr8", 1 << 40, 1 << 40, 1 << 60, "came"),
        ("yuyv", 6, 7, 24, "even"),
        ("nv12", 5, 8, 8, "even"),
        ("bayer_rggb8", 2, 8, 8, "3x3"),
        ("BRG8", 6, 8, 24, "unknown image encoding"),
        ("bgr88", 6, 8, 24, "did you mean 'bgr8'"),
    ],
)
def test_wrong_messages(encoding: str, height: int, width: int, step: int, message: str) -> None:
    with pytest.raises(EncodingError, match=message) as caught:
        to_bgr(bytes(143), encoding=encoding, height=height, width=width, step=step)
    assert "\n" not in str(caught.value)


def test_non_contiguous_buffer() -> None:
    with pytest.raises(EncodingError, match="contiguous"):
        to_bgr(np.zeros((4, 8), np.uint8)[:, ::2], encoding="mono8", height=2, width=2, step=2)


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=400),
    encoding=st.sampled_from([*ENCODINGS, "", "jpeg", "BGR8"]),
    height=st.integers(-3, 20) | st.integers(),
    width=st.integers(-3, 20) | st.integers(),
    step=st.integers(-3, 60) | st.integers(),
    big=st.booleans(),
)
def test_malformed_messages_only_raise_encoding_errors(data, encoding, height, width, step, big) -> None:
    image, error = attempt(to_bgr, data, encoding=encoding, height=height, width=width, step=step, is_bigendian=big)
    assert "\n" not in error
    if image is not None:
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_label(encoding: str, padding: int) -> None:
    data, step = pack(GREY, padding)
    np.testing.assert_array_equal(to_label(data, encoding=encoding, height=H, width=W, step=step), GREY)


def test_label_refuses_colours_and_short_data() -> None:
    with pytest.raises(EncodingError, match="mono8 or 8UC1"):
        to_label(bytes(300), encoding="bgr8", height=2, width=2, step=6)
    with pytest.raises(EncodingError, match="4 bytes needed, 3 came"):
        to_label(bytes(3), encoding="mono8", height=2, width=2, step=2)


# --- JPEG and PNG


def save(mode_array: np.ndarray, *, mode: str | None = None, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mode_array, mode).save(out, "PNG", **options)
    return out.getvalue()


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.dstack([x * 3, y * 4, 255 - x * 2]).astype(np.uint8)


def test_sniff() -> None:
    assert sniff(encode_jpeg(smooth())) == "jpeg"
    assert sniff(encode_png(smooth())) == "png"
    assert sniff(b"GIF89a..") is None
    assert sniff(b"") is None


def test_png_round_trip_is_exact() -> None:
    np.testing.assert_array_equal(decode_compressed(encode_png(smooth())), smooth())
    np.testing.assert_array_equal(decode_label(encode_png(GREY)), GREY)


def test_jpeg_is_bgr_and_close() -> None:
    data = encode_jpeg(smooth())
    assert np.abs(decode_compressed(data).astype(int) - smooth()).mean() < 2
    rgb = np.asarray(Image.open(io.BytesIO(data)))  # an independent decoder agrees on the channel order
    assert np.abs(decode_compressed(data).astype(int) - rgb[..., ::-1]).mean() < 1


def test_jpeg_quality() -> None:
    assert len(encode_jpeg(smooth(), 30)) < len(encode_jpeg(smooth(), 95))
    with pytest.raises(EncodingError, match="quality 0"):
        encode_jpeg(smooth(), 0)


def test_grey_alpha_and_sixteen_bit_pngs_become_bgr() -> None:
    np.testing.assert_array_equal(decode_compressed(encode_png(GREY)), grey3(GREY))
    np.testing.assert_array_equal(decode_compressed(save(alpha(BGR[..., ::-1]))), BGR)
    deep = cv2.imencode(".png", GREY.astype(np.uint16) << 8)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(deep), grey3(GREY))


def test_zero_padded_jpeg_is_accepted() -> None:
    assert decode_compressed(encode_jpeg(smooth()) + bytes(500)).shape == (48, 64, 3)


@pytest.mark.parametrize("encode", [encode_jpeg, encode_png])
@pytest.mark.parametrize("keep", [10, 100, 0.5, 0.9])
def test_cut_short(encode, keep) -> None:
    data = encode(RNG.integers(0, 256, (48, 64, 3), np.uint8))
    cut = data[: keep if isinstance(keep, int) else int(len(data) * keep)]
    with pytest.raises(EncodingError, match=r"cut short|frame header|cannot be decoded"):
        decode_compressed(cut)


def test_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encode_png(smooth()))
    data[len(data) // 2] ^= 4
    with pytest.raises(EncodingError, match="checksum"):
        decode_compressed(bytes(data))


def test_absurd_png_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 0, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    for decode in (decode_compressed, decode_label):
        with pytest.raises(EncodingError, match="1048576x1048576"):
            decode(bomb)


def test_absurd_jpeg_is_refused() -> None:
    data = bytearray(encode_jpeg(smooth()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(EncodingError, match="65535x65535"):
        decode_compressed(bytes(data))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_label_gives_indices(bits: int) -> None:
    ids = RNG.integers(0, min(2**bits, 12), (7, 13), np.uint8)
    picture = Image.fromarray(ids, "P")
    picture.putpalette(RNG.integers(0, 256, 3 * 2**bits, np.uint8).tobytes())
    out = io.BytesIO()
    picture.save(out, "PNG", bits=bits)
    np.testing.assert_array_equal(decode_label(out.getvalue()), ids)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_jpeg(smooth()), "JPEG never carries class ids"),
        (encode_png(smooth()), "colours, not class ids"),
        (save(alpha(BGR)), "colours, not class ids"),
        (cv2.imencode(".png", GREY.astype(np.uint16))[1].tobytes(), "16 bits per pixel"),
        (save(GREY > 99), "1 bits per pixel"),
        (b"", "not a PNG"),
        (b"hello", "not a PNG"),
        (encode_png(GREY)[:-5], "cut short"),
    ],
)
def test_labels_that_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        decode_label(data)


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_arrays_that_cannot_be_encoded(wrong: np.ndarray) -> None:
    for encode in (encode_jpeg, encode_png):
        with pytest.raises(EncodingError):
            encode(wrong)


VALID = [encode_jpeg(smooth()), encode_png(smooth()), encode_png(GREY)]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_only_raise_encoding_errors(data) -> None:
    raw = bytearray(data.draw(st.sampled_from(VALID)))
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=8)
    ):
        raw[position] = value
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    for decode, dims in ((decode_compressed, 3), (decode_label, 2)):
        image, error = attempt(decode, bytes(raw))
        assert "\n" not in error
        assert image is None or image.ndim == dims


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=60), palette=st.booleans(), bits=st.sampled_from([1, 2, 4, 8, 16, 3]))
def test_png_with_right_checksums_and_wild_content(body: bytes, palette: bool, bits: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, bits, 3 if palette else 0, 0, 0, 0))
    raw += chunk(b"PLTE", body[:30]) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    for decode in (decode_compressed, decode_label):
        _, error = attempt(decode, raw)
        assert "\n" not in error
