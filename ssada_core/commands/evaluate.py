"""``ssada evaluate``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ssada_core.commands.common import JsonOption, console, progress_bar, report, say
from ssada_core.data.encodings import encode_png
from ssada_core.data.lists import open_samples
from ssada_core.errors import ConfigError, DataError
from ssada_core.evaluation.evaluate import Evaluation, evaluate
from ssada_core.evaluation.probabilities import ProtocolEngine
from ssada_core.evaluation.protocol import PRESETS, ProtocolSettings
from ssada_core.evaluation.sheet import worst_sheet
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine, read_manifest, read_model
from ssada_core.labels import LabelSpace
from ssada_core.settings import nearest, parse_settings
from ssada_core.store.files import write_atomic
from ssada_core.store.models import resolve_model

_WINDOW = re.compile(r"(\d+)(?:x(\d+))?")
_RATIO = re.compile(r"(\d+)/([1-9]\d*)")


def command(
    model: Annotated[str, typer.Option(help="Model folder, registry, REGISTRY@VERSION, or a shipped model's name.")],
    data: Annotated[
        str,
        typer.Option(
            help="Labelled frames: list file, folder, bag, source pack, sim:DOMAIN, or LAYOUT:FOLDER:SPLIT with "
            "cityscapes, gta5, synthia, acdc, crosscity, camvid, bev or splits, such as cityscapes:data/cityscapes:val."
        ),
    ],
    backend: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16, int8, or auto.")] = "fp32",
    preset: Annotated[str, typer.Option(help="The papers' protocols: ss-ada, crosscity-ss or crosscity-ms.")] = "",
    mode: Annotated[str, typer.Option(help="whole or sliding.")] = "",
    window: Annotated[str, typer.Option(help="Size of a window, HxW or one number; 1024x1024.")] = "",
    stride: Annotated[str, typer.Option(help="Step of the windows as a share of their size; 2/3.")] = "",
    scales: Annotated[str, typer.Option(help="Scales to average over, such as 0.5,0.75,1; 1.")] = "",
    flip: Annotated[bool, typer.Option("--flip", help="Average with mirrored frames.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the worst frames (PNG).")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure a model on labelled frames: mIoU, IoU per class, pixel accuracy, confusion matrix.

    Without --preset, --mode sliding, --scales or --flip an inference engine runs at the network's size. With them,
    torch runs at the frames' own size: windows' probabilities are summed, scales and mirrored frames averaged.

    Example: ssada evaluate --model sim-day --data sim:night --sheet worst.png
    """
    values = protocol_values(mode=mode, window=window, stride=stride, scales=scales, flip=flip)
    protocol = choose_protocol(preset, values, data)
    if sheet is not None and not sheet.absolute().parent.is_dir():
        raise ConfigError(f"--sheet {sheet}: there is no folder {sheet.parent}: make it first")
    settings = parse_settings(EngineSettings, {"backend": backend, "precision": precision}, source="command line")
    folder = resolve_model(model)
    label_space = read_manifest(folder).labels()
    samples = open_samples(data, label_space)
    with closing(_open_engine(folder, settings, protocol)) as engine:
        with progress_bar("evaluating") as tell:
            evaluation = evaluate(engine, samples, label_space.num_classes, on_progress=tell)
        if not evaluation.names:
            raise DataError(f"none of the {evaluation.skipped} frames of '{data}' has a label: name a list with labels")
        _show(evaluation, label_space)
        words = protocol.model_dump(mode="json") if protocol else None
        figures = {"model": model, "data": data, "protocol": words, **evaluation.summary(label_space)}
        report({**figures, "confusion_matrix": evaluation.matrix.tolist()}, json_file)
        if sheet is not None:  # last: what was measured is not lost with it
            write_atomic(sheet, encode_png(worst_sheet(engine, samples, evaluation, label_space)))


def protocol_values(*, mode: str, window: str, stride: str, scales: str, flip: bool) -> dict[str, Any]:
    """What the options say, as values of :class:`ProtocolSettings`; empty options say nothing.

    Raises:
        ConfigError: if one of them cannot be read.
    """
    values: dict[str, Any] = {"mode": mode} if mode else {}
    if window:
        match = _WINDOW.fullmatch(window)
        if match is None:
            raise ConfigError(f"--window '{window}' is not HxW, such as 800x800")
        values |= {"window_height": int(match[1]), "window_width": int(match[2] or match[1])}
    if stride:
        values["stride"] = _share(stride)
    if scales:
        values["scales"] = [_number(word, "--scales") for word in scales.split(",")]
    return values | ({"flip": True} if flip else {})


def choose_protocol(preset: str, values: Mapping[str, Any], data: str) -> ProtocolSettings | None:
    """The preset with the options' changes; None where neither asks for anything but an engine on whole frames.

    Raises:
        ConfigError: if there is no such preset, or a value does not fit.
    """
    if preset and preset not in PRESETS:
        raise ConfigError(f"--preset '{preset}'{nearest(preset, list(PRESETS))}")
    base = PRESETS[preset](_layout(data)).model_dump() if preset else {}
    protocol = parse_settings(ProtocolSettings, {**base, **values}, source="command line")
    windowed = {"window_height", "window_width", "stride"} & values.keys()
    if windowed and protocol.mode != "sliding":
        raise ConfigError("--window and --stride are of sliding windows: add --mode sliding")
    asks = preset or protocol.mode == "sliding" or {"scales", "flip"} & values.keys()
    return protocol if asks else None


def _layout(data: str) -> str:
    """The layout's name in a reference; what chooses frames of it (``every:N:``, ``frames:A-B:``) does not count."""
    return re.sub(r"^(every:\d+:|(frames|except):\d+-\d+:)+", "", data).partition(":")[0]


def _share(text: str) -> float:
    match = _RATIO.fullmatch(text)
    return int(match[1]) / int(match[2]) if match else _number(text, "--stride")


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option}: '{text}' is not a number") from None


def _open_engine(folder: Path, settings: EngineSettings, protocol: ProtocolSettings | None) -> Engine:
    if protocol is None:
        return load_engine(folder, settings, log=say)
    if settings.backend not in {"auto", "torch"} or settings.precision not in {"auto", "fp32"}:
        raise ConfigError(
            f"evaluation protocols run in torch in fp32, not {settings.backend} {settings.precision}: "
            "leave --backend and --precision out"
        )
    network, _ = read_model(folder)
    return ProtocolEngine(network, protocol)


def _show(evaluation: Evaluation, label_space: LabelSpace) -> None:
    table = Table("class", "IoU %")
    for name, value in zip(label_space.classes, evaluation.iou, strict=True):
        table.add_row(name, f"{100 * value:.1f}")
    console.print(table)
