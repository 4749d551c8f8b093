"""What every command shares: the console, progress bars, errors as one line, figures as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ssada_core.errors import ConfigError, SsadaError
from ssada_core.store.files import write_json

EXIT_FAILED, EXIT_WRONG_USE = 1, 2

console = Console(stderr=True, highlight=False, markup=False)
"""For people: progress and messages. Figures go to standard output."""

JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this JSON file.")]
LabelsOption = Annotated[str, typer.Option("--label-space", help="Label space: a built-in name or a YAML file.")]


def make_app(help_text: str) -> typer.Typer:
    """A command group with the same manners everywhere."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run(app: typer.Typer) -> int:
    """Run an application; returns the exit status: 0 done, 1 failed, 2 wrong use. Errors are one line.

    ``--debug`` anywhere on the command line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        status = app(arguments, standalone_mode=False)
    except typer.Abort:
        return 130
    except SsadaError as error:
        if debug:
            raise
        say(str(error), alarm="error")
        return EXIT_WRONG_USE if isinstance(error, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except Exception as error:  # noqa: BLE001 (what is no usage error is raised again)
        return _usage_error(error)
    return int(status or 0)


def _usage_error(error: Exception) -> int:
    # typer's own errors (an unknown option, a missing argument) know how to show themselves; others are bugs.
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return int(getattr(error, "exit_code", EXIT_WRONG_USE))


def say(words: str, *, alarm: str = "") -> None:
    """Tell a person something, in one line however long, and as it is: ``pip install 'ssada_ros[ros]'`` has no markup.

    Args:
        words: what.
        alarm: the kind of trouble, put before it.
    """
    console.print(Text.assemble((f"{alarm}: " if alarm else "", "bold red"), words), soft_wrap=True)


def report(values: dict[str, Any], json_file: Path | None) -> None:
    """Print figures as JSON on standard output, and write them to a file if asked."""
    sys.stdout.write(json.dumps(values, indent=2) + "\n")
    if json_file is not None:
        write_json(json_file, values)


@contextmanager
def progress_bar(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar to be told (done, total)."""
    columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(words, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell
