"""``ssada models`` and ``ssada export``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ssada_core.commands.common import EXIT_FAILED, JsonOption, console, make_app, report, say
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import ArraySamples, spread
from ssada_core.errors import ConfigError
from ssada_core.inference.export import deploy, rebuilt_folders
from ssada_core.inference.load import read_manifest, read_model
from ssada_core.inference.quantise import QuantisationSettings
from ssada_core.inference.targets import INT8_TARGETS
from ssada_core.labels import load_label_space
from ssada_core.networks.settings import ONNX_ARCHITECTURE
from ssada_core.store.import_weights import MIN_SHARE, import_weights
from ssada_core.store.model_files import seal, verify_rest
from ssada_core.store.model_files import verify as verify_files
from ssada_core.store.models import open_registry, resolve_model, shipped_models
from ssada_core.store.registry import ModelRegistry
from ssada_core.store.signature import create_keys, sign, verify_signature

app = make_app("Look after model versions: list, inspect, check, promote, roll back.")

RegistryArgument = Annotated[Path, typer.Argument(help="Folder of the registry.")]


@app.command("list")
def list_models(
    registry: Annotated[Path | None, typer.Argument(help="Registry; without one, the shipped models.")] = None,
) -> None:
    """List the versions of a registry, or the shipped models.

    Example: ssada models list out/demo/registry
    """
    table = Table("model", "created", "parent", "training")
    if registry is None:
        for name, model in shipped_models().items():
            table.add_row(name, "", "", model.command)
    else:
        models = open_registry(registry)
        current = models.current()
        for version in models.versions():
            manifest = models.manifest(version)
            mark = " (current)" if version == current else ""
            table.add_row(version + mark, manifest.created, manifest.parent or "", manifest.training.get("reason", ""))
    console.print(table)


@app.command("add")
def add(
    registry: RegistryArgument,
    model: Annotated[str, typer.Argument(help="Model folder, REGISTRY@VERSION, or a shipped model's name.")],
) -> None:
    """Copy a model into a registry, made if it is not there; the first one becomes the current one.

    Example: ssada models add ssada/registry sim-day
    """
    models = ModelRegistry(registry)
    version = models.adopt(resolve_model(model))
    if models.current() is None:
        models.promote(version)
    say(f"{version}: {model}; current: {models.current()}")


@app.command("import")
def import_checkpoint(
    source: Annotated[str, typer.Argument(help="Checkpoint: a file, or an https URL.")],
    sha256: Annotated[str, typer.Option(help="SHA-256 of the checkpoint, checked before it is read.")],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    label_space: Annotated[
        str, typer.Option("--label-space", help="Built-in name or YAML file; by default by the number of classes.")
    ] = "",
    layout: Annotated[str, typer.Option(help="Whose checkpoint it is; by default recognised by its names.")] = "",
    height: Annotated[
        int | None, typer.Option(help="Height at which the model runs; 512, or an ONNX model's own.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Width at which the model runs; 1024, or an ONNX model's own.")
    ] = None,
    min_share: Annotated[float, typer.Option(help="Share of the needed tensors that must match, 0 to 1.")] = MIN_SHARE,
    output: Annotated[str, typer.Option(help="Of an ONNX model: the output to use, by default the first.")] = "",
    normalisation: Annotated[
        str, typer.Option(help="Of an ONNX model's input: imagenet, unit (0 to 1) or none (0 to 255).")
    ] = "imagenet",
    colours: Annotated[str, typer.Option(help="Of an ONNX model's input: rgb or bgr.")] = "rgb",
    json_file: JsonOption = None,
) -> None:
    """Make a model of a public checkpoint (CoinCheung's BiSeNet V1 and V2, SS-ADA, TUFL, torchvision's ResNet-18).

    Or of any ONNX segmentation model with one image as input, which then runs but cannot be trained.

    Example: ssada models import model_final_v2_city.pth --sha256 HEX --out models/city --label-space cityscapes
    Example: ssada models import segformer.onnx --sha256 HEX --out models/own --label-space cityscapes
    """
    if source.lower().endswith(".onnx"):
        _import_onnx(source, sha256, out, label_space, (height, width), output, normalisation, colours, json_file)
        return
    found = import_weights(
        source,
        sha256,
        out,
        label_space=label_space,
        layout=layout,
        size=(height or 512, width or 1024),
        min_share=min_share,
    )
    for line in found.words():
        say(line)
    report({"model": str(out), **asdict(found)}, json_file)


def _import_onnx(
    source: str,
    sha256: str,
    out: Path,
    label_space: str,
    size: tuple[int | None, int | None],
    output: str,
    normalisation: str,
    colours: str,
    json_file: Path | None,
) -> None:
    from ssada_core.inference.import_onnx import check_choices, import_onnx

    if not label_space:
        raise ConfigError("an ONNX model does not say what its classes are: give --label-space")
    chosen_normalisation, chosen_colours = check_choices(normalisation, colours)
    found = import_onnx(
        source,
        sha256,
        out,
        label_space=load_label_space(label_space),
        size=size,
        output=output,
        normalisation=chosen_normalisation,
        colours=chosen_colours,
    )
    for line in found.words():
        say(line)
    report({"model": str(out), **asdict(found)}, json_file)


@app.command("info")
def info(model: Annotated[str, typer.Argument(help="Model reference.")], json_file: JsonOption = None) -> None:
    """Show a model's manifest, its number of parameters, and the FLOPs of a frame at its size.

    Example: ssada models info sim-day
    """
    from ssada_core.networks import cost

    folder = resolve_model(model)
    manifest = read_manifest(folder)
    if manifest.network.architecture == ONNX_ARCHITECTURE:
        report(manifest.model_dump(mode="json"), json_file)
        return
    network, _ = read_model(folder)
    size = manifest.network.input_height, manifest.network.input_width
    costs = {"parameters": cost.parameters(network), "flops": cost.flops(network, size)}
    report({**manifest.model_dump(mode="json"), **costs}, json_file)


@app.command("why")
def why(
    registry: RegistryArgument,
    version: Annotated[str, typer.Argument(help="Such as v0003; the current one if it is left out.")] = "",
    html_file: Annotated[Path | None, typer.Option("--html", help="Page to write; VERSION_why.html here.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Write a version's change dossier: data, labels, figures by road and class, regression cases, decision, hashes.

    Example: ssada models why out/demo/registry v0002 --html why.html --json why.json
    """
    from ssada_core.adaptation.dossier import build_dossier, write_page

    models = open_registry(registry)
    dossier = build_dossier(models, version or models.current_or_fail())
    page = html_file or Path(f"{dossier.version}_why.html")
    write_page(page, dossier)
    say(f"page: {page}")
    report(dossier.model_dump(mode="json"), json_file)


@app.command("verify")
def verify(
    registry: RegistryArgument,
    key: Annotated[Path | None, typer.Option(help="Public key: also check that each version is signed by it.")] = None,
) -> int:
    """Check every file of every version against its hash; exit status 1 if one differs.

    Example: ssada models verify out/demo/registry
    """
    models = open_registry(registry)
    for version in models.versions():
        models.verify(version)
        if key is not None:
            verify_signature(models.path(version), key)
        say(f"{version}: all files as in the manifest{', signed' if key is not None else ''}")
    return 0


@app.command("promote")
def promote(registry: RegistryArgument, version: Annotated[str, typer.Argument(help="Such as v0003.")]) -> None:
    """Make a version the current one, by hand.

    Example: ssada models promote out/demo/registry v0001
    """
    open_registry(registry).promote(version, {"verdict": "promote", "words": "promoted by hand"})
    say(f"current: {version}")


@app.command("rollback")
def rollback(registry: RegistryArgument) -> None:
    """Go back to the version that was current before.

    Example: ssada models rollback out/demo/registry
    """
    say(f"current: {open_registry(registry).rollback('asked by hand')}")


@app.command("keys")
def keys(private: Annotated[Path, typer.Argument(help="File of the private key; the public one gets '.pub'.")]) -> None:
    """Make a pair of keys to sign models with. Keep the private one where only the signer can read it.

    Example: ssada models keys release.pem
    """
    say(f"{private}: keep it secret; {create_keys(private)}: give it to every vehicle (registry.trusted_key)")


@app.command("sign")
def sign_model(
    model: Annotated[str, typer.Argument(help="Model folder, or REGISTRY@VERSION.")],
    key: Annotated[Path, typer.Option(help="Private key, as `ssada models keys` makes it.")],
) -> None:
    """Check a model's files and sign them.

    Example: ssada models sign ssada/registry@v0003 --key release.pem
    """
    folder = resolve_model(model)
    verify_files(folder)
    sign(folder, key)
    say(f"{folder}: signed")


def export(
    model: Annotated[str, typer.Argument(help="Model folder, whose deploy/ is (re)built.")],
    target: Annotated[
        list[str] | None, typer.Option(help="onnx-fp32, onnx-int8, openvino-fp32, openvino-int8; all installed ones.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Frames to calibrate int8 on: list file, folder, bag, source pack or sim:DOMAIN.")
    ] = "",
) -> int:
    """Export a model for the inference backends: fp32 is checked against torch, int8 against fp32.

    Example: ssada export runs/sim_day/model --target openvino-fp32
    """
    folder = resolve_model(model)
    manifest = read_manifest(folder)
    settings = QuantisationSettings()
    samples = spread(open_samples(data, manifest.labels()), settings.frames) if data else ArraySamples([])
    frames = [samples.image(index) for index in range(len(samples))]
    labels = [label for index in range(len(samples)) if (label := samples.label(index)) is not None]
    verify_rest(folder, manifest, rebuilt=rebuilt_folders(target or None, frames=bool(frames)))
    result = deploy(
        folder,
        targets=target or None,
        frames=frames,
        labels=labels if labels and len(labels) == len(frames) else None,
        quantisation=settings,
    )
    seal(folder, manifest)  # else `ssada models verify` would find other files than the manifest names
    for done in result.targets:
        compared = "fp32" if done.name in INT8_TARGETS else "torch"
        say(f"{done.name}: {100 * done.equal:.3f} % of labels as {compared}, {done.seconds:.1f} s")
    for refused in result.refused:
        say(f"{refused.name}: not deployed: {refused.reason}")
    asked = set(target or ()) | (INT8_TARGETS.keys() if data else set())
    return EXIT_FAILED if asked & {refused.name for refused in result.refused} else 0
