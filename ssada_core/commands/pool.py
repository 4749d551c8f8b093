"""``ssada pool``: look into a frame pool, and take out of it what must not stay."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ssada_core.annotation.exchange import export_pool, import_masks
from ssada_core.annotation.submit import SubmitResult
from ssada_core.commands.common import JsonOption, LabelsOption, make_app, progress_bar, report, say
from ssada_core.commands.lazy import add_lazily
from ssada_core.data.privacy import Hider, PrivacySettings
from ssada_core.errors import ConfigError, StoreError
from ssada_core.labels import load_label_space
from ssada_core.store.pool import STATES, FramePool, PoolSettings

app = make_app("Look into a frame pool, and take out of it what must not stay.")
add_lazily(
    app,
    "labelstudio",
    "ssada_core.commands.label_studio:app",
    "Label in Label Studio: push frames with predictions, pull masks.",
)

PoolArgument = Annotated[Path, typer.Argument(help="Folder of the pool.")]
_DAY_NS = 86_400 * 10**9


@app.command("stats")
def stats(path: PoolArgument, label_space: LabelsOption = "camvid", json_file: JsonOption = None) -> None:
    """Count a pool's frames, queries and labels.

    Example: ssada pool stats out/demo/pool
    """
    with open_pool(path, label_space) as opened:
        found = opened.stats()
    report(
        {
            "frames": dict(found.counts),
            "audit_labelled": found.audit_labelled,
            "megabytes": round(found.image_bytes / 1e6, 1),
            "cameras": dict(found.cameras),
        },
        json_file,
    )


@app.command("verify")
def verify(path: PoolArgument, label_space: LabelsOption = "camvid") -> int:
    """Check files against the database; exit status 1 if something is wrong.

    Example: ssada pool verify out/demo/pool
    """
    with open_pool(path, label_space) as opened:
        problems = opened.verify()
    for problem in problems:
        say(problem)
    say(f"{path}: {len(problems)} problems")
    return 1 if problems else 0


@app.command("export")
def export(
    path: PoolArgument,
    out: Annotated[Path, typer.Argument(help="Folder to write, or zip file for cvat.")],
    format_name: Annotated[str, typer.Option("--format", help="png, cvat or cityscapes.")] = "png",
    content: Annotated[
        str, typer.Option("--content", help="open (with the model's predictions), labelled, or all.")
    ] = "open",
    hide_with: Annotated[
        list[str] | None, typer.Option("--hide", help="Detector as for `ssada pool hide`, run over what is written.")
    ] = None,
    label_space: LabelsOption = "camvid",
) -> None:
    """Write frames and masks for another labelling tool, or as a data set.

    Example: ssada pool export out/demo/pool queries.zip --format cvat
    """
    with open_pool(path, label_space) as opened:
        hider = Hider(PrivacySettings(detectors=hide_with or []))
        count = export_pool(opened, out, format_name=format_name, content=content, hider=hider)
    say(f"{out}: {count} frames ({content}, {format_name})")


@app.command("import")
def import_labels(
    path: PoolArgument,
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
    with open_pool(path, label_space, tidy=True) as opened:
        results = import_masks(
            opened, masks, format_name=format_name, annotator=annotator, confirmed=confirmed, on_result=tell_result
        )
    return report_results(results, json_file)


def tell_result(result: SubmitResult) -> None:
    """Say why a label was not accepted."""
    if result.why:
        say(f"{result.query_id}: {result.status}: {result.why}")


def report_results(results: list[SubmitResult], json_file: Path | None) -> int:
    """Count what became of labels; returns the exit status."""
    counts = Counter(result.status for result in results)
    report({status: counts[status] for status in ("accepted", "held", "refused")}, json_file)
    return 0 if counts["accepted"] == len(results) else 1


@app.command("purge")
def purge(
    path: PoolArgument,
    older_than: Annotated[float | None, typer.Option(min=0, help="Days since they were stored.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only frames in this state; may be given again.")] = None,
    camera: Annotated[str, typer.Option(help="Only frames of this camera.")] = "",
    query: Annotated[list[str] | None, typer.Option(help="Only this query's frame; may be given again.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every frame.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> int:
    """Delete frames with everything that belongs to them: image, prediction, drafts, and labels, too.

    All conditions must hold. Models that were trained on them stay; train or roll back where that matters.

    Example: ssada pool purge ssada/pool --older-than 30 --state buffered
    """
    if not (everything or older_than is not None or state or camera or query):
        raise ConfigError("nothing chosen: give --older-than, --state, --camera or --query, or --all for every frame")
    unknown = sorted(set(state or ()) - set(STATES))
    if unknown:
        raise ConfigError(f"--state {unknown[0]}: there are {', '.join(STATES)}")
    with open_pool(path, label_space) as opened:
        limit = time.time_ns() - int((older_than or 0) * _DAY_NS)
        chosen = [
            record
            for record in opened.frames(camera=camera or None)
            if (not state or record.state in state)
            and (not query or record.query_id in query)
            and (older_than is None or record.stored_at <= limit)
        ]
        labelled = sum(record.state == "labelled" for record in chosen)
        words = f"{len(chosen)} frames, {labelled} of them labelled"
        if chosen and not yes and not typer.confirm(f"Delete {words}, for good?"):
            say("nothing was deleted")
            return 1
        removed = opened.purge([record.id for record in chosen])
    say(f"{path}: deleted {words}")
    report({"purged": removed, "labelled": labelled}, json_file)
    return 0


@app.command("hide")
def hide(
    path: PoolArgument,
    detector: Annotated[list[str], typer.Option(help="module:function, FILE.xml or FILE.onnx; may be given again.")],
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> None:
    """Hide faces and plates in the frames of a pool that came in before anything looked for them.

    Example: ssada pool hide ssada/pool --detector faces.xml --detector plates.xml
    """
    hider = Hider(PrivacySettings(detectors=detector))
    changed = places = 0
    with open_pool(path, label_space, tidy=True) as opened, progress_bar("frames") as tell:
        records = opened.frames(states=[state for state in STATES if state != "rejected"])
        for done, record in enumerate(records):
            found = opened.hide(record.id, hider)
            changed, places = changed + bool(found), places + found
            tell(done + 1, len(records))
    report({"frames": len(records), "changed": changed, "hidden": places}, json_file)


@contextmanager
def open_pool(path: Path, label_space: str, *, tidy: bool = False) -> Iterator[FramePool]:
    """Open a pool that is there; ``tidy`` as for :class:`FramePool`: whoever only looks changes nothing.

    Raises:
        StoreError: if it is none.
    """
    if not (path / "pool.sqlite").exists():
        raise StoreError(f"{path} is no frame pool: it has no pool.sqlite")
    with FramePool(path, PoolSettings(), label_space=load_label_space(label_space), tidy=tidy) as opened:
        yield opened
