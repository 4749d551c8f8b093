"""``ssada bench adaptation``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ssada_core.bench.adaptation import model_sha256, run_benchmark, source_model
from ssada_core.bench.adaptation_report import claims, markdown, summarise
from ssada_core.bench.adaptation_settings import BenchSettings
from ssada_core.commands.common import JsonOption, console, progress_bar, report, say
from ssada_core.config import load_settings
from ssada_core.errors import ConfigError
from ssada_core.store.files import write_atomic


def command(
    config: Annotated[Path, typer.Option(help="What to compare on which frames (config/bench/*.yaml).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as data.pool=my_pool.txt")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds instead of the configuration's, such as 0,1,2.")] = "",
    settings: Annotated[str, typer.Option(help="Settings instead of the configuration's: source,ssada_25.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Short trainings: to see that all of it works.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Runs side by side; 0: the configuration's.")] = 0,
    markdown_file: Annotated[Path | None, typer.Option("--md", help="Also write the tables as Markdown.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Adapt one source model in many ways on equal terms, and compare them on frames none of them saw.

    Finished runs are kept, so that an interrupted benchmark goes on where it was.

    Example: ssada bench adaptation --config config/bench/camvid_dusk.yaml --seeds 0 --settings source,ssada_25
    """
    bench = load_settings(BenchSettings, config, overrides or [])
    bench = bench.model_copy(update={"jobs": jobs} if jobs else {})
    numbers, names = _numbers(seeds), [word.strip() for word in settings.split(",") if word.strip()]
    with progress_bar("runs") as tell:
        results = run_benchmark(bench, settings=names, seeds=numbers, quick=quick, on_progress=tell, log=say)
    root = Path(bench.out) / (f"{bench.name}-quick" if quick else bench.name)
    model = source_model(bench, root, quick=quick, log=say)
    summary = summarise(results)
    figures: dict[str, Any] = {
        "name": bench.name,
        "command": " ".join(["ssada", *sys.argv[1:]]),
        "quick": quick,
        "seeds": list(numbers or bench.seeds),
        "source_model": model,
        "source_model_sha256": model_sha256(model),
        "data": bench.data.model_dump(mode="json"),
        "settings": summary,
        "claims": claims(summary),
    }
    _show(figures["settings"])
    if markdown_file is not None:
        write_atomic(markdown_file, markdown(figures, bench).encode())
    report(figures, json_file)


def _numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--seeds {text} is not a list of whole numbers, such as 0,1,2")
    return [int(word) for word in words]


def _show(settings: dict[str, dict[str, Any]]) -> None:
    table = Table("setting", "labels", "mIoU", "day mIoU", "seconds")
    for name, figures in settings.items():
        day = figures["day_miou_mean"]
        shown = f"{day:.1f}" if day is not None else "–"
        miou = f"{figures['miou_mean']:.1f} ± {figures['miou_std']:.1f}"
        table.add_row(name, str(figures["labels"]), miou, shown, f"{figures['seconds']:.0f}")
    console.print(table)
