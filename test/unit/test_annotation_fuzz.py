"""Two thousand fuzzed uploads: none is accepted that the label check would refuse, and nothing falls over."""

from __future__ import annotations

import http.client
import json
import struct
import zlib
from collections import Counter

import cv2
import numpy as np
import pytest
from annotate_fixtures import SIZE, fill_pool, open_pool, serving

from ssada_core.annotation.check import LabelCheckSettings, check_label
from ssada_core.data.encodings import decode_label, encode_jpeg, encode_png
from ssada_core.errors import DataError
from ssada_core.labels import CAMVID


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *, bits: int = 8, color: int = 0, extra: bytes = b"") -> bytes:
    """A PNG whose header says what one likes."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def labels(rng: np.random.Generator) -> np.ndarray:
    """Ids in blocks, some of which are no classes, at the frame's size or near it."""
    height, width = SIZE
    if rng.random() < 0.2:
        height, width = int(rng.integers(1, 300)), int(rng.integers(1, 400))
    most = rng.choice([3, 11, 12, 13, 40, 256], p=[0.3, 0.3, 0.15, 0.1, 0.1, 0.05])
    blocks = rng.integers(0, most, (height // 16 + 1, width // 16 + 1)).astype(np.uint8)
    blocks[rng.random(blocks.shape) < rng.choice([0, 0.5, 0.97, 1])] = 255
    return cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)


def upload(rng: np.random.Generator) -> bytes:
    height, width = SIZE
    label = labels(rng)
    good = encode_png(label)
    kind = rng.integers(12)
    if kind == 0:
        return rng.bytes(int(rng.integers(0, 500)))
    if kind == 1:
        return good[: rng.integers(0, len(good))]
    if kind in (2, 3):
        broken = bytearray(good)
        for position in rng.integers(0, len(good), int(rng.integers(1, 9))):
            broken[position] = rng.integers(256)
        return bytes(broken)
    if kind == 4:
        return encode_jpeg(label)
    if kind == 5:
        return encode_png(np.dstack([label] * 3))
    if kind == 6:  # says one size and holds another
        return png(width, height, rng.bytes(int(rng.integers(0, 5000))), bits=int(rng.choice([1, 2, 4, 8, 16])))
    if kind == 7:  # a bomb
        return png(int(rng.integers(1, 2**31)), int(rng.integers(1, 2**31)), bytes(1000))
    if kind == 8:  # a palette whose entries the indices exceed
        rows = b"".join(b"\0" + row.tobytes() for row in label)
        return png(
            label.shape[1], label.shape[0], rows, color=3, extra=chunk(b"PLTE", bytes(3 * int(rng.integers(1, 30))))
        )
    if kind == 9:
        return png(width, height, rng.bytes(height * (width + 1)), color=int(rng.integers(0, 8)))
    if kind == 10:  # nothing but one class: to be held
        return encode_png(np.full(SIZE, rng.integers(11), np.uint8))
    return good


def refusal(data: bytes) -> bool:
    """Whether the label check, alone, would refuse this."""
    try:
        label = decode_label(data)
    except DataError:
        return True
    settings = LabelCheckSettings()
    return check_label(label, size=SIZE, label_space=CAMVID, settings=settings).status == "refused"


@pytest.mark.parametrize("uploads", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_fuzzed_uploads(tmp_path, uploads):
    root = tmp_path / "pool"
    queries = fill_pool(root, frames=8)
    rng = np.random.default_rng(20261126)
    counts: Counter[str] = Counter()
    with serving(root) as server:
        connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=60)
        for number in range(uploads):
            data, query = upload(rng), queries[number % len(queries)]
            named = {"X-Person": "fuzz", "X-Holder": "fuzz", "Content-Type": "image/png"}
            draft = rng.random() < 0.1
            way = ("PUT", f"/api/queries/{query}/draft") if draft else ("POST", f"/api/queries/{query}/label")
            connection.request(*way, data, named)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in (200, 422), (number, answer.status, body)
            if draft:
                counts[f"draft {answer.status}"] += 1
                continue
            status = json.loads(body).get("status", "refused") if answer.status == 200 else "refused"
            assert json.loads(body)["why"] or status == "accepted"
            counts[status] += 1
            assert (status == "refused") == refusal(data), (number, status, body)
        connection.close()
    # Every kind of answer was met, and what is kept is as the check wants it.
    assert min(counts["accepted"], counts["held"], counts["refused"]) > uploads // 50, counts
    with open_pool(root) as pool:
        assert pool.verify() == []
        kept = [pool.read_label(entry) for query in queries for entry in pool.label_history(query)]
    assert len(kept) > uploads // 25
    for label in kept:
        assert label.shape == SIZE
        assert set(np.unique(label)) <= {*range(11), 255}
        assert np.mean(label != 255) >= 0.05
