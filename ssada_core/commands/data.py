"""``ssada bag`` and ``ssada source``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ssada_core.commands.common import JsonOption, LabelsOption, make_app, progress_bar, report, say
from ssada_core.data.bag_cut import Cut, cut_bag
from ssada_core.data.bag_survey import survey_bag
from ssada_core.data.bags import create_bag
from ssada_core.data.damage import Damage
from ssada_core.data.lists import DirectorySamples, open_samples
from ssada_core.data.source_pack import create_pack
from ssada_core.labels import load_label_space

bag = make_app("Make and inspect recordings (rosbag2), without ROS.")
source = make_app("Source packs: what the model knew before, carried along.")


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
    say(f"{out}: {count} frames, {storage}, {'jpeg' if compressed else 'raw'}")


@bag.command("info")
def show_bag(
    path: Annotated[Path, typer.Argument(help="The recording, also a damaged one.")],
    thorough: Annotated[
        bool, typer.Option("--check", help="Read every message, instead of believing metadata and index.")
    ] = False,
    json_file: JsonOption = None,
) -> None:
    """Show a recording's topics, counts and span; of a damaged one what can still be read, and what is broken.

    Example: ssada bag info dusk_bag
    """
    with progress_bar("reading") as tell:
        info, damage = survey_bag(path, thorough=thorough, progress=tell)
    show_damage(damage)
    report(
        {
            "storage": info.storage,
            "duration_s": info.duration_s,
            "messages": info.count,
            "topics": [{"name": topic.name, "type": topic.type, "messages": topic.count} for topic in info.topics],
            "damage": [{"kind": item.kind, "count": item.count, "example": item.example} for item in damage],
        },
        json_file,
    )


@bag.command("cut")
def bag_cut(
    path: Annotated[Path, typer.Argument(help="The recording, also a damaged one.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new bag; must not exist.")],
    start: Annotated[float, typer.Option(min=0, help="Begin so many seconds after the first message.")] = 0.0,
    end: Annotated[float, typer.Option(min=0, help="End so many seconds after the first message; 0 is the end.")] = 0.0,
    topic: Annotated[list[str] | None, typer.Option("--topic", help="Topic to take; all without it.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Every n-th record time: frames with their labels.")] = 1,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
) -> None:
    """Copy a part of a recording, message for message; of a damaged one what can still be read.

    Example: ssada bag cut drive_bag dusk_bag --start 600 --end 900
    """
    kind: Literal["mcap", "sqlite3"] = "sqlite3" if storage == "sqlite3" else "mcap"
    if storage not in {"mcap", "sqlite3"}:
        raise typer.BadParameter(f"'{storage}': mcap or sqlite3", param_hint="--storage")
    part = Cut(start, end, tuple(topic or ()), every)
    with progress_bar("cutting") as tell:
        count, damage = cut_bag(path, out, part, storage=kind, progress=tell)
    show_damage(damage)
    say(f"{out}: {count} messages, {storage}")


def show_damage(damage: Damage) -> None:
    """What was broken, a line for each kind, on standard error."""
    for item in damage:
        say(f"{item.count}x {item.kind} ({item.example})")


@source.command("pack")
def source_pack(
    data: Annotated[str, typer.Option(help="Labelled frames the model was first trained on.")],
    out: Annotated[Path, typer.Argument(help="The pack, *.zip.")],
    frames: Annotated[int, typer.Option(help="Frames to choose, balanced by class.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Decides between equally good frames.")] = 0,
    label_space: LabelsOption = "camvid",
) -> None:
    """Choose a class-balanced few hundred labelled frames and put them into one file.

    Example: ssada source pack --data source_day.txt --frames 200 source_pack.zip
    """
    labels = load_label_space(label_space)
    with progress_bar("reading labels") as tell:
        summary = create_pack(open_samples(data, labels), labels, out, frames=frames, seed=seed, progress=tell)
    report(summary, None)
