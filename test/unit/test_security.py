"""What may run, be read and be written at somebody else's word: nothing, but what was configured."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml

from ssada_core.annotation.folder import FolderExchange
from ssada_core.annotation.submit import submit
from ssada_core.config import load_yaml
from ssada_core.data.compressed import decode_compressed
from ssada_core.errors import ModelError, SsadaError
from ssada_core.labels import CAMVID, load_label_space
from ssada_core.store.files import sha256_file
from ssada_core.store.import_weights import import_weights
from ssada_core.store.pool import FramePool, PoolSettings
from ssada_core.store.registry import ModelRegistry

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("ssada_core", "ssada_ros", "launch", "scripts") for path in (REPOSITORY / folder).rglob("*.py")
)
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
ONLY_AN_ERROR = {("ssada_core/store/import_weights.py", "pickle.UnpicklingError")}
"""Where a name of such a module is needed without loading anything."""
EVIL_NAMES = [
    "../../outside",
    "/etc/passwd",
    "v0001/../../outside",
    "..",
    ".",
    "",
    "~",
    "v0001\0",
    "$(touch outside)",
    "'; DROP TABLE frames; --",
    "%2e%2e%2foutside",
    "v" * 5000,
]


def findings(tree: ast.AST, file: str) -> list[str]:
    """Every place where data could become code, as ``line: what``."""
    return [
        f"{node.lineno}: {what}"
        for node in ast.walk(tree)
        if isinstance(node, ast.expr | ast.stmt)
        for what in _of_node(node, file)
    ]


def _of_node(node: ast.expr | ast.stmt, file: str) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"from {node.module}"] if (node.module or "").partition(".")[0] in UNPICKLERS else []
    if isinstance(node, ast.Attribute):
        name = ast.unparse(node)
        known = name.partition(".")[0] in UNPICKLERS and (file, name) not in ONLY_AN_ERROR
        return [name] if known else []
    return _of_call(node) if isinstance(node, ast.Call) else []


def _of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    bad = {
        "yaml.load": True,
        "yaml.load_all": True,
        "yaml.full_load": True,
        "yaml.unsafe_load": True,
        "torch.load": given.get("weights_only") != "True",
        "np.load": given.get("allow_pickle", "False") != "False",
        "numpy.load": given.get("allow_pickle", "False") != "False",
        "torch.jit.load": True,
        "eval": True,
        "exec": True,
        "os.system": True,
        "os.popen": True,
        "__import__": True,
    }
    wrong = [name] if bad.get(name, False) else []
    return wrong + (["shell=True"] if given.get("shell", "False") != "False" else [])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_that_is_read_can_become_code(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert findings(tree, str(path.relative_to(REPOSITORY))) == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(b)",
        "from pickle import loads",
        "import pickle; pickle.load(f)",
        "yaml.load(t, yaml.Loader)",
        "yaml.unsafe_load(t)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "eval(t)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
    ],
)
def test_the_scan_finds_what_it_looks_for(line: str):
    assert findings(ast.parse(line), "x.py") != []


class Payload:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_the_payload_would_work(tmp_path: Path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("how", ["plain", "torch"])
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(tmp_path: Path, how: str):
    import torch

    mark, file = tmp_path / "mark", tmp_path / "model.pth"
    if how == "plain":
        file.write_bytes(pickle.dumps({"weights": Payload(mark)}))
    else:
        torch.save({"weights": Payload(mark)}, file)
    with pytest.raises(SsadaError):
        import_weights(str(file), sha256_file(file), tmp_path / "model", label_space="camvid")
    assert not mark.exists()


def test_yaml_that_asks_for_code_is_refused_and_not_run(tmp_path: Path):
    mark, file = tmp_path / "mark", tmp_path / "evil.yaml"
    text = f'!!python/object/apply:os.mknod ["{mark}"]\n'
    yaml.unsafe_load(text)  # what a careless reader would do
    assert mark.exists()
    mark.unlink()
    file.write_text(f"classes: {text}")
    with pytest.raises(SsadaError):
        load_label_space(str(file))
    with pytest.raises(SsadaError):
        load_yaml(file)
    assert not mark.exists()


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_registry_knows_no_version_outside_itself(tmp_path: Path, name: str):
    (tmp_path / "outside").mkdir()
    registry = ModelRegistry(tmp_path / "registry")
    for act in (registry.path, registry.manifest, registry.load_weights, registry.verify, registry.promote):
        with pytest.raises(ModelError, match="no model version"):
            act(name)
    assert [path for path in listing(tmp_path) if not path.endswith("lock")] == ["outside", "registry"]


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_query_id_names_no_file(tmp_path: Path, name: str):
    pool = FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID)
    pool.add(np.full((48, 64, 3), 90, np.uint8), camera="front", stamp_ns=1)
    before = listing(tmp_path)
    result = submit(pool, name, np.zeros((48, 64), np.uint8), "somebody")
    assert result.status == "refused"
    assert sum(pool.stats().counts.values()) == 1
    pool.close()
    assert [path for path in listing(tmp_path) if "sqlite" not in path] == [p for p in before if "sqlite" not in p]


@pytest.mark.parametrize("name", ["../outside.png", "..png", "a/../../outside.png"])
def test_a_label_file_leads_nowhere_else(tmp_path: Path, name: str):
    """Links in the labels folder are not followed, and nothing is written beside the folders."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG secret")
    pool = FramePool(tmp_path / "pool", PoolSettings(keep_free_share=0.0), label_space=CAMVID)
    exchange = FolderExchange(pool, tmp_path / "queries", tmp_path / "labels")
    (tmp_path / "labels" / Path(name).name).symlink_to(secret)
    before = {path.name for path in tmp_path.iterdir()}
    results = exchange.poll()
    assert [result.status for result in results] in ([], ["refused"])  # a hidden name is not even looked at
    assert {path.name for path in tmp_path.iterdir()} == before
    assert secret.read_bytes() == b"\x89PNG secret"
    pool.close()


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)  # 10.8 GB of pixels
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(SsadaError, match="60000x60000"):
        decode_compressed(bomb)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "/." not in str(path))
