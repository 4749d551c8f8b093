"""Foreign ONNX models become model directories."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast, get_args

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, version_converter

from ssada_core.errors import ConfigError, EngineError, ModelError
from ssada_core.inference.export import deploy
from ssada_core.inference.load import ONNX_FILE
from ssada_core.inference.onnx_around import Colours, Normalisation, surrounded
from ssada_core.inference.onnx_forms import OnnxInput, OnnxOutput, find_input, find_output, fix_shape
from ssada_core.inference.targets import TARGETS, installed_targets
from ssada_core.labels import LabelSpace
from ssada_core.networks.settings import ONNX_ARCHITECTURE, NetworkSettings
from ssada_core.store.files import make_directory, write_atomic
from ssada_core.store.journal import utc_now
from ssada_core.store.manifest import MANIFEST_FILE, ModelManifest
from ssada_core.store.model_files import seal
from ssada_core.store.verified import open_verified

OPSET = 13
"""Older models are converted; from here on the operators that are put around them are the same."""


@dataclass(frozen=True)
class OnnxImport:
    """What was found and made.

    Attributes:
        input: of the model.
        output: of the model.
        deployed: forms that were made.
        refused: forms that were not, and why.
    """

    input: OnnxInput
    output: OnnxOutput
    deployed: tuple[str, ...]
    refused: tuple[str, ...]

    def words(self) -> list[str]:
        """What was found, line by line."""
        axes = "x".join(map(str, self.output.size))
        return [
            f"input {self.input.name}: {self.input.kind} {list(self.input.shape)}",
            f"output {self.output.name}: {self.output.form} {list(self.output.shape)}, {axes} pixels",
            f"runs as {', '.join(self.deployed)}; int8: ssada export, with --data",
            *(f"does not run as {line}" for line in self.refused),
        ]


def check_choices(normalisation: str, colours: str) -> tuple[Normalisation, Colours]:
    """The two choices as types.

    Raises:
        ConfigError: if there is no such choice.
    """
    for value, kind, option in ((normalisation, Normalisation, "normalisation"), (colours, Colours, "colours")):
        if value not in get_args(kind):
            raise ConfigError(f"--{option} '{value}': {' or '.join(get_args(kind))}")
    return cast(Normalisation, normalisation), cast(Colours, colours)


def import_onnx(
    source: str,
    sha256: str,
    out: Path,
    *,
    label_space: LabelSpace,
    size: tuple[int | None, int | None] = (None, None),
    output: str = "",
    normalisation: Normalisation = "imagenet",
    colours: Colours = "rgb",
) -> OnnxImport:
    """Make a model directory of an ONNX model; it runs, but cannot be trained.

    Args:
        source: a file, or an https URL.
        sha256: of its content; nothing is parsed before it is right.
        out: the model directory, which must not hold a model yet.
        label_space: what the classes mean.
        size: height and width, where the model leaves them open.
        output: name of the output to use; the first by default.
        normalisation: what the model expects of pixels: ImageNet's mean and deviation, 0…1, or 0…255.
        colours: their order.

    Raises:
        ModelError: if it cannot be had or verified, or has another form than expected, saying which.
        StoreError: if the disk refuses.
    """
    if (out / MANIFEST_FILE).exists():
        raise ModelError(f"{out} already holds a model: name another folder")
    with open_verified(source, sha256) as file:
        model = _parse(file.read(), source)
    entry = find_input(model, size, source)
    fixed = fix_shape(model, entry)
    answer = find_output(fixed, entry, label_space.num_classes, output, source)
    graph = surrounded(fixed, entry, answer, label_space.num_classes, normalisation, colours)
    make_directory((out / ONNX_FILE).parent)
    write_atomic(out / ONNX_FILE, graph.SerializeToString())
    origin = {
        "reason": f"imported from {source.rpartition('/')[2]}",
        "source_sha256": sha256.strip().lower(),
        "input": asdict(entry),
        "output": asdict(answer),
        "normalisation": normalisation,
        "colours": colours,
    }
    manifest = _manifest(entry.size, label_space, origin)
    seal(out, manifest)
    deployed, refused = _deploy(out)
    seal(out, manifest)
    return OnnxImport(entry, answer, deployed, refused)


def _manifest(size: tuple[int, int], label_space: LabelSpace, origin: dict[str, Any]) -> ModelManifest:
    network = NetworkSettings(architecture=ONNX_ARCHITECTURE, input_height=size[0], input_width=size[1])
    return ModelManifest(
        version="imported-onnx",
        created=utc_now(),
        network=network,
        label_space=label_space.to_dict(),
        training=origin,
    )


def _deploy(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every exact form there is; what a backend cannot run is left to the others."""
    obstacles = {name: _obstacle(folder, name) for name in installed_targets() if name in TARGETS}
    refused = tuple(f"{name}: {obstacle}" for name, obstacle in obstacles.items() if obstacle)
    if len(refused) == len(obstacles):
        raise ModelError(f"no backend runs this model: {'; '.join(refused)}")
    return tuple(name for name, obstacle in obstacles.items() if not obstacle), refused


def _obstacle(folder: Path, target: str) -> str:
    """Deploy one form; why not, if not."""
    try:
        deploy(folder, targets=[target])
    except EngineError as error:
        return str(error)
    return ""


def _parse(content: bytes, source: str) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise ModelError(f"{source} keeps its weights in another file: save it as one (onnx.save does)")
        onnx.checker.check_model(model)
        version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        return model if version >= OPSET else version_converter.convert_version(model, OPSET)
    except (DecodeError, onnx.checker.ValidationError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{source} is no valid ONNX model ({reason[0]}): export it again") from error
