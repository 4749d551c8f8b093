"""``ssada annotate``: the page on which humans answer queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssada_core.annotation.serve import AnnotateJob, serve
from ssada_core.annotation.settings import TOKEN_VARIABLE, AnnotateSettings
from ssada_core.commands.common import LabelsOption, say
from ssada_core.errors import StoreError
from ssada_core.labels import load_label_space
from ssada_core.settings import parse_settings

_DEFAULTS = AnnotateSettings()


def command(
    pool: Annotated[Path, typer.Option(help="Folder of the frame pool.")],
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 demands a token.")] = (
        _DEFAULTS.host
    ),
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = _DEFAULTS.port,
    token: Annotated[
        str, typer.Option(help="Secret that visitors must give.", envvar=TOKEN_VARIABLE, show_envvar=True)
    ] = "",
    registry: Annotated[Path | None, typer.Option(help="Model registry, to show the model's figures.")] = None,
    budget: Annotated[int, typer.Option(min=0, help="Frames that may be asked for, to show the progress.")] = 0,
    label_space: LabelsOption = "camvid",
) -> None:
    """Serve the annotation page of a frame pool until Ctrl-C.

    Example: ssada annotate --pool out/demo/pool
    """
    if not (pool / "pool.sqlite").exists():
        raise StoreError(f"{pool} is no frame pool: it has no pool.sqlite")
    values = {"host": host, "port": port, "token": token}
    job = AnnotateJob(
        pool_dir=str(pool),
        label_space=json.loads(load_label_space(label_space).to_json()),
        annotate=parse_settings(AnnotateSettings, values, source="ssada annotate"),
        budget=budget,
        registry_dir=str(registry or ""),
    )
    serve(job, lambda address: say(f"annotation page: {address} · Ctrl-C stops"))
