"""``ssada pool labelstudio``: frames to a Label Studio project, and its masks back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssada_core.annotation.label_studio import LabelStudioProject
from ssada_core.commands.common import JsonOption, LabelsOption, make_app, progress_bar, say
from ssada_core.commands.pool import open_pool, report_results, tell_result
from ssada_core.data.privacy import Hider, PrivacySettings

app = make_app("Label in Label Studio: push frames with predictions, pull masks.")

_Pool = Annotated[Path, typer.Argument(help="Folder of the pool.")]
_Url = Annotated[str, typer.Option(help="Address of the server.")]
_Project = Annotated[str, typer.Option(help="Name of the project; made where it is missing.")]
_Token = Annotated[str, typer.Option(help="Access token.", envvar="LABEL_STUDIO_API_KEY", show_envvar=True)]


@app.command("push")
def push(
    path: _Pool,
    url: _Url = "http://127.0.0.1:8080",
    project: _Project = "ssada",
    token: _Token = "",
    hide_with: Annotated[
        list[str] | None, typer.Option("--hide", help="Detector as for `ssada pool hide`, run over what is sent.")
    ] = None,
    label_space: LabelsOption = "camvid",
) -> None:
    """Send open questions that the project does not have yet, with the model's predictions as brush masks.

    Example: ssada pool labelstudio push out/demo/pool --url http://127.0.0.1:8080
    """
    with open_pool(path, label_space) as opened, progress_bar("frames") as tell:
        hider = Hider(PrivacySettings(detectors=hide_with or []))
        count = LabelStudioProject(url, token, project, opened.label_space).push(opened, hider=hider, on_frame=tell)
    say(f"{url}, project {project}: {count} new frames")


@app.command("pull")
def pull(
    path: _Pool,
    url: _Url = "http://127.0.0.1:8080",
    project: _Project = "ssada",
    token: _Token = "",
    label_space: LabelsOption = "camvid",
    json_file: JsonOption = None,
) -> int:
    """Take in new masks; every one passes the label check. Exit status 1 if not all were accepted.

    Example: ssada pool labelstudio pull out/demo/pool --url http://127.0.0.1:8080
    """
    with open_pool(path, label_space, tidy=True) as opened:
        results = LabelStudioProject(url, token, project, opened.label_space).pull(opened)
    for result in results:
        tell_result(result)
    return report_results(results, json_file)
