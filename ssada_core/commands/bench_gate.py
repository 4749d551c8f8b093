"""``ssada bench gate``, ``rounds``, ``long-drive`` and ``drift``: what the adaptation is worth, and its guards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ssada_core.adaptation.gate_settings import GateSettings, Policy
from ssada_core.bench import drift, honest, long_drive
from ssada_core.bench import gate as curve
from ssada_core.commands.common import JsonOption, progress_bar, report, say
from ssada_core.config import parse_overrides
from ssada_core.errors import ConfigError
from ssada_core.inference.load import read_manifest
from ssada_core.learning.settings import RoundTrainingSettings
from ssada_core.settings import parse_settings
from ssada_core.store.files import write_atomic
from ssada_core.store.models import resolve_model


def gate(
    champion: Annotated[str, typer.Option(help="Model reference of the champion.")],
    challenger: Annotated[str, typer.Option(help="Model reference of a challenger trained from it.")],
    target: Annotated[str, typer.Option(help="Labelled frames of the new road, none of them trained on.")],
    source: Annotated[str, typer.Option(help="Labelled source frames; without them forgetting is not judged.")] = "",
    policy: Annotated[str, typer.Option(help="strict or lenient.")] = "strict",
    frames: Annotated[int, typer.Option(min=16, help="Target frames that are run.")] = 300,
    rate: Annotated[float, typer.Option(min=0.01, help="Target frames per second.")] = 1.0,
    trials: Annotated[int, typer.Option(min=1, help="Draws of audit frames at each place and number.")] = 100,
    counts: Annotated[str, typer.Option(help="Numbers of audit frames.")] = "4,8,12,16,24,32",
    markdown_file: Annotated[Path | None, typer.Option("--md", help="Also write the tables as Markdown.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw the curve into a PNG file.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the gate's operating curve: true gain against probability of promotion, by number of audit frames.

    Example: ssada bench gate --champion sim-day --challenger ssada/registry@v0003 --target sim:night:7:0-900:3
    """
    bench = curve.GateBench(
        champion=champion,
        challenger=challenger,
        target=target,
        source=source,
        frames=frames,
        rate=rate,
        trials=trials,
        audit_frames=_counts(counts),
        gate=GateSettings(policy=_policy(policy), bootstrap_samples=400),
    )
    with progress_bar("models") as tell:
        figures = curve.measure(bench, tell)
    figures["command"] = " ".join(["ssada", *sys.argv[1:]])
    if markdown_file is not None:
        write_atomic(markdown_file, curve.markdown(figures).encode())
    if plot_file is not None:
        curve.plot(figures, plot_file)
    worst = max(figures["false_promotions"].values())
    say(f"without a true gain at most {100 * worst:.0f} % of the draws were promoted")
    report(figures, json_file)


def _policy(name: str) -> Policy:
    for known in ("strict", "lenient"):
        if name == known:
            return known
    raise ConfigError(f"--policy '{name}': strict or lenient")


def _counts(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"--counts {text} is not a list of whole numbers, such as 8,16,32")
    return tuple(int(word) for word in words)


def drive(
    model: Annotated[str, typer.Option(help="Model to start with.")] = "sim-day",
    out: Annotated[Path, typer.Option(help="Folder of both arms.")] = Path("out/long_drive"),
    iterations: Annotated[int, typer.Option(min=1, help="Steps of every round.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the street.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One short round a phase: to see that all of it works.")
    ] = False,
    markdown_file: Annotated[Path | None, typer.Option("--md", help="Also write the table as Markdown.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw both arms into a PNG file.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Drive day → night → rain → day → night with 8 rounds: guarded by gate, replay and watch, and unguarded.

    Example: ssada bench long-drive --json long_drive.json --plot long_drive.png
    """
    bench = long_drive.LongDrive(model=model, out=str(out), seed=seed)
    changes: dict[str, object] = {"training": bench.training.model_copy(update={"iterations": iterations})}
    if quick:
        short = bench.training.model_copy(update={"iterations": 2, "crop_height": 64, "crop_width": 96})
        changes = {"training": short, "phases": ("day", "night"), "rounds": (1, 1), "frames": 24, "eval_frames": 2}
    figures = long_drive.run(bench.model_copy(update=changes), say)
    figures["command"] = " ".join(["ssada", *sys.argv[1:]])
    if markdown_file is not None:
        write_atomic(markdown_file, long_drive.markdown(figures).encode())
    if plot_file is not None:
        long_drive.plot(figures, plot_file)
    for arm, values in figures["arms"].items():
        change = ", ".join(f"{name} {points:+.1f}" for name, points in values["change"].items())
        say(f"{arm}: change of mIoU from the first model: {change}")
    report(figures, json_file)


def rounds(
    model: Annotated[str, typer.Option(help="Model to start with.")],
    pool: Annotated[str, typer.Option(help="Labelled frames of the new road; their labels answer queries.")],
    validation: Annotated[str, typer.Option(help="Labelled frames of it that nobody sees.")],
    source: Annotated[str, typer.Option(help="Labelled source frames.")],
    out: Annotated[Path, typer.Option(help="Folder; finished rounds are kept.")] = Path("out/honest"),
    labels: Annotated[int, typer.Option(min=2, help="Labels, every fourth to judge by.")] = 16,
    seeds: Annotated[str, typer.Option(help="One round each.")] = "0,1,2",
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value of the training, as iterations=80.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--md", help="Also write the table as Markdown.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Run honest rounds by the real worker, and compare the gate's verdicts with the true gain.

    Example: ssada bench rounds --model runs/day/model --pool dusk_pool.txt --validation dusk_val.txt --source day.txt
    """
    bench = honest.HonestRounds(
        model=model,
        pool=pool,
        validation=validation,
        source=source,
        out=str(out),
        labels=labels,
        seeds=tuple(int(word) for word in seeds.split(",") if word.strip().isdecimal()),
        training=parse_settings(RoundTrainingSettings, parse_overrides(overrides or []), source="command line"),
    )
    rows = honest.run(bench, say)
    if markdown_file is not None:
        write_atomic(markdown_file, honest.markdown(rows).encode())
    report({"command": " ".join(["ssada", *sys.argv[1:]]), "rounds": rows}, json_file)


def road_change(
    model: Annotated[str, typer.Option(help="Model reference.")],
    source: Annotated[str, typer.Option(help="Frames that the model was made from.")],
    same: Annotated[list[str], typer.Option(help="Unseen frames of the same road; may be given repeatedly.")],
    changed: Annotated[list[str], typer.Option(help="Frames of another road; may be given repeatedly.")],
    rate: Annotated[float, typer.Option(min=0.01, help="Frames per second.")] = 1.0,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Also draw both distributions (PNG).")] = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the drift score: false alarms on the model's own road, and how soon another road is found.

    Example: ssada bench drift --model sim-day --source sim:day:100 --same sim:day:5 --changed sim:night:5
    """
    bench = drift.DriftBench(model=model, source=source, same=tuple(same), changed=tuple(changed), rate=rate)
    figures = drift.measure(bench, read_manifest(resolve_model(model)).labels())
    if plot_file is not None:
        drift.plot(figures, plot_file)
    say(f"{figures['false_alarms']} false alarms in {figures['frames']} frames")
    for name, found in figures["found_after_frames"].items():
        say(f"{name}: {'not found' if found is None else f'found on frame {found}'}")
    figures["command"] = " ".join(["ssada", *sys.argv[1:]])
    report(figures, json_file)
