"""What the adaptation benchmark found, as JSON for programs and Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssada_core.bench.adaptation_settings import BenchSettings, recipe

Figures = dict[str, Any]


def summarise(results: Sequence[Figures]) -> Figures:
    """Mean and spread over the seeds, per setting in the order of first appearance.

    ``miou_std`` is the sample standard deviation (n − 1), 0 for one seed; mIoU is in percent, ``day_*`` on the held-out
    source frames (None without any); ``seconds`` and ``passes`` are means of one run.
    """
    names = dict.fromkeys(result["setting"] for result in results)
    return {name: _setting([result for result in results if result["setting"] == name]) for name in names}


def _setting(runs: Sequence[Figures]) -> Figures:
    values = [float(run["miou"]) for run in runs]
    days = [float(run["day_miou"]) for run in runs if run.get("day_miou") is not None]
    changed = [float(run["changed_share"]) for run in runs if "changed_share" in run]
    return {
        "miou_mean": float(np.mean(values)),
        "miou_std": _spread(values),
        "miou_by_seed": {str(run["seed"]): float(run["miou"]) for run in runs},
        "day_miou_mean": float(np.mean(days)) if days else None,
        "day_miou_std": _spread(days) if days else None,
        "labels": runs[0]["labels"],
        "iterations": runs[0]["iterations"],
        "passes": runs[0]["passes"],
        "seconds": float(np.mean([run["seconds"] for run in runs])),
        "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in runs])),
        "changed_share": float(np.mean(changed)) if changed else None,
        "iou": _mean_iou([run["iou"] for run in runs]),
    }


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _mean_iou(runs: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in runs[0]:
        known = [value for run in runs if (value := run[name]) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


CLAIMS = (
    ("ssada_25", "supervised_100", 0.0),
    ("ssada_25", "joint_25", 2.0),
    ("ssada_12", "supervised_100", 0.0),
    ("ssada_25", "joint_100", 0.0),
    ("tufl_0", "source", 0.0),
)
"""What is to be shown: the first setting beats the second by at least this many points of mIoU."""


def claims(settings: Figures) -> list[Figures]:
    """The claims both of whose settings were run, with the difference of means and of each common seed."""
    found = []
    for better, worse, margin in CLAIMS:
        if better in settings and worse in settings:
            difference = settings[better]["miou_mean"] - settings[worse]["miou_mean"]
            found.append(
                {
                    "better": better,
                    "than": worse,
                    "by_at_least": margin,
                    "difference": difference,
                    "by_seed": _by_seed(settings[better], settings[worse]),
                    "holds": difference >= margin if margin or better == "ssada_12" else difference > 0,
                }
            )
    return found


def _by_seed(better: Figures, worse: Figures) -> dict[str, float]:
    fallback = worse["miou_mean"] if len(worse["miou_by_seed"]) == 1 else None
    others = worse["miou_by_seed"]
    return {
        seed: value - others.get(seed, fallback)
        for seed, value in better["miou_by_seed"].items()
        if seed in others or fallback is not None
    }


def markdown(report: Figures, bench: BenchSettings) -> str:
    """The tables of ``docs/results/*.md``."""
    settings = report["settings"]
    source_day = settings.get("source", {}).get("day_miou_mean")
    iterations = bench.quick_iterations if report["quick"] else bench.training.iterations
    columns = ("setting", "labels", "mIoU", "day mIoU", "day, against source", "passes", "seconds", "CPU seconds")
    lines = [
        f"# {bench.name}: adapting one source model",
        "",
        f"Made by `{report['command']}`. Source model `{report['source_model']}` "
        f"(weights {report['source_model_sha256'][:12]}…), {len(report['seeds'])} seeds, last checkpoint of "
        f"{iterations} iterations each, one CPU thread a run. mIoU in percent on frames that nothing trained on or "
        "chose by, mean ± standard deviation over the seeds; *day* is a stretch of source frames that not even the "
        "source model trained on; *passes* are images through the network.",
        "",
        f"| {' | '.join(columns)} |",
        "| --- |" + " --- |" * (len(columns) - 1),
        *(_row(name, figures, source_day) for name, figures in settings.items()),
        "",
        *_claim_lines(report["claims"]),
        *_changed_lines(settings),
        *_class_table(settings),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, figures: Figures, source_day: float | None) -> str:
    day = figures["day_miou_mean"]
    fallen = f"{day - source_day:+.1f}" if day is not None and source_day is not None else "–"
    shown = f"{day:.1f} ± {figures['day_miou_std']:.1f}" if day is not None else "–"
    return (
        f"| {name} | {figures['labels']} | {figures['miou_mean']:.1f} ± {figures['miou_std']:.1f} | {shown} | {fallen} "
        f"| {figures['passes']} | {figures['seconds']:.0f} | {figures['cpu_seconds']:.0f} |"
    )


def _claim_lines(found: Sequence[Figures]) -> list[str]:
    if not found:
        return []
    lines = ["## Claims", "", "| claim | difference | by seed | holds |", "| --- | --- | --- | --- |"]
    for claim in found:
        seeds = ", ".join(f"{value:+.1f}" for value in claim["by_seed"].values())
        margin = f" by {claim['by_at_least']:.0f}" if claim["by_at_least"] else ""
        words = f"{claim['better']} above {claim['than']}{margin}"
        lines.append(f"| {words} | {claim['difference']:+.1f} | {seeds} | {'yes' if claim['holds'] else '**no**'} |")
    return [*lines, ""]


def _changed_lines(settings: Figures) -> list[str]:
    return [
        f"{name} changes the class of {100 * figures['changed_share']:.1f} % of the validation pixels."
        for name, figures in settings.items()
        if figures["changed_share"] is not None and recipe(name).mode == "tufl"
    ] + [""]


def _class_table(settings: Figures) -> list[str]:
    classes = list(next(iter(settings.values()))["iou"])
    lines = ["## IoU per class, percent", ""]
    lines += [f"| setting | {' | '.join(classes)} |", "| --- |" + " --- |" * len(classes)]
    for name, figures in settings.items():
        values = [f"{value:.0f}" if value is not None else "–" for value in figures["iou"].values()]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return lines
