"""``ssada bag``, ``ssada source`` and ``ssada pool``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssada_core.annotation.exchange import export_pool, import_masks
from ssada_core.annotation.submit import SubmitResult
from ssada_core.commands.common import JsonOption, LabelsOption, console, make_app, progress_bar, report
from ssada_core.data.bags import bag_info, create_bag
from ssada_core.data.lists import DirectorySamples, open_samples
from ssada_core.data.source_pack import create_pack
from ssada_core.errors import StoreError
from ssada_core.labels import load_label_space
from ssada_core.store.pool import FramePool, PoolSettings

bag = make_app("Make and inspect recordings (rosbag2), without ROS.")
source = make_app("Source packs: what the model knew before, carried along.")
pool = make_app("Look into a frame pool.")


@bag.command("create")
def bag_create(
    out: Annotated[Path, typer.Argument(help="Folder of the bag; must not exist.")],
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of labels, matched by file name.")] = None,
    list_file: Annotated[Path | None, typer.Option("--list", help="Which frames, in which order.")] = None,
    rate: Annotated[float, typer.Option(help="Frames per second.")] = 5.0,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    compressed: Annotated[bool, typer.Option("--compressed/--raw", help="JPEG bytes, or raw bgr8.")] = True,
    label_space: LabelsOption = "camvid",
) -> None:
    """Write a rosbag2 of images and labels.

    Example: ssada bag create --images images --labels labels --list dusk_pool.txt --rate 2 dusk_bag
    """
    kind: Literal["mcap", "sqlite3"] = "sqlite3" if storage == "sqlite3" else "mcap"
    if storage not in {"mcap", "sqlite3"}:
        raise typer.BadParameter(f"'{storage}': mcap or sqlite3", param_hint="--storage")
    samples = DirectorySamples(images, labels, load_label_space(label_space), list_file=list_file)
    with progress_bar("writing") as tell:
        count = create_bag(samples, out, rate=rate, compressed=compressed, storage=kind, progress=tell)
    console.print(f"{out}: {count} frames, {storage}, {'jpeg' if compressed else 'raw'}")


@bag.command("info")
def show_bag(path: Annotated[Path, typer.Argument(help="The bag.")], json_file: JsonOption = None) -> None:
    """Show a recording's topics, counts and span.

    Example: ssada bag info dusk_bag
    """
    info = bag_info(path)
    topics = [{"name": topic.name, "type": topic.type, "messages": topic.count} for topic in info.topics]
    report(
        {"storage": info.storage, "duration_s": info.duration_s, "messages": info.count, "topics": topics}, json_file
    )


@source.command("pack")
def source_pack(
    data: Annotated[str, typer.Option(help="Labelled frames the model was first trained on.")],
    out: Annotated[Path, typer.Argument(help="The pack, *.zip.")],
    frames: Annotated[int, typer.Option(help="Frames to choose, balanced by class.")] = 200,
    seed: Annotated[int, typer.Option(help="Decides between equally good frames.")] = 0,
    label_space: LabelsOption = "camvid",
) -> None:
    """Choose a class-balanced few hundred labelled frames and put them into one file.

    Example: ssada source pack --data source_day.txt --frames 200 source_pack.zip
    """
    labels = load_label_space(label_space)
    with progress_bar("reading labels") as tell:
        summary = create_pack(open_samples(data, labels), labels, out, frames=frames, seed=seed, progress=tell)
    report(summary, None)


@pool.command("stats")
def pool_stats(
    path: Annotated[Path, typer.Argument(help="Folder of the pool.")],
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> None:
    """Count a pool's frames, queries and labels.

    Example: ssada pool stats out/demo/pool
    """
    with _open_pool(path, label_space) as opened:
        stats = opened.stats()
    report(
        {
            "frames": dict(stats.counts),
            "audit_labelled": stats.audit_labelled,
            "megabytes": round(stats.image_bytes / 1e6, 1),
            "cameras": dict(stats.cameras),
        },
        json_file,
    )


@pool.command("verify")
def pool_verify(
    path: Annotated[Path, typer.Argument(help="Folder of the pool.")], label_space: LabelsOption = "camvid"
) -> int:
    """Check files against the database; exit status 1 if something is wrong.

    Example: ssada pool verify out/demo/pool
    """
    with _open_pool(path, label_space) as opened:
        problems = opened.verify()
    for problem in problems:
        console.print(problem)
    console.print(f"{path}: {len(problems)} problems")
    return 1 if problems else 0


@pool.command("export")
def pool_export(
    path: Annotated[Path, typer.Argument(help="Folder of the pool.")],
    out: Annotated[Path, typer.Argument(help="Folder to write, or zip file for cvat.")],
    format_name: Annotated[str, typer.Option("--format", help="png, cvat or cityscapes.")] = "png",
    content: Annotated[
        str, typer.Option("--content", help="open (with the model's predictions), labelled, or all.")
    ] = "open",
    label_space: LabelsOption = "camvid",
) -> None:
    """Write frames and masks for another labelling tool, or as a data set.

    Example: ssada pool export out/demo/pool queries.zip --format cvat
    """
    with _open_pool(path, label_space) as opened:
        count = export_pool(opened, out, format_name=format_name, content=content)
    console.print(f"{out}: {count} frames ({content}, {format_name})")


@pool.command("import")
def pool_import(
    path: Annotated[Path, typer.Argument(help="Folder of the pool.")],
    masks: Annotated[Path, typer.Argument(help="Folder of masks, or zip file for cvat.")],
    format_name: Annotated[str, typer.Option("--format", help="png, cvat or cityscapes.")] = "png",
    annotator: Annotated[str, typer.Option(help="Who made them.")] = "import",
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="Suspicious ones were looked at again: take them.")
    ] = False,
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> int:
    """Take in masks by their query ids; every one passes the label check. Exit status 1 if not all were accepted.

    Example: ssada pool import out/demo/pool from_cvat.zip --format cvat --annotator Ada
    """
    with _open_pool(path, label_space) as opened:
        results = import_masks(
            opened, masks, format_name=format_name, annotator=annotator, confirmed=confirmed, on_result=_tell_result
        )
    return _report_results(results, json_file)


def _tell_result(result: SubmitResult) -> None:
    if result.why:
        console.print(f"{result.query_id}: {result.status}: {result.why}", markup=False, soft_wrap=True)


def _report_results(results: list[SubmitResult], json_file: Path | None) -> int:
    counts = Counter(result.status for result in results)
    report({status: counts[status] for status in ("accepted", "held", "refused")}, json_file)
    return 0 if counts["accepted"] == len(results) else 1


def _open_pool(path: Path, label_space: str) -> FramePool:
    if not (path / "pool.sqlite").exists():
        raise StoreError(f"{path} is no frame pool: it has no pool.sqlite")
    return FramePool(path, PoolSettings(), label_space=load_label_space(label_space))
