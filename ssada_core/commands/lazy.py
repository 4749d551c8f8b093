"""Commands whose modules are imported when they are asked for, so that ``ssada --help`` waits for no PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand


def add_lazily(app: typer.Typer, name: str, target: str, words: str) -> None:
    """Enter a command or a group of commands; one of the same name gives way.

    Args:
        app: where it is entered.
        name: as it is typed.
        target: ``module:attribute`` of the function or of the group's ``Typer``.
        words: what the list of commands says, which is the first paragraph of the target's own help.
    """

    class Stub(TyperCommand):
        """Stands in the list; what is done with it is done with the real command."""

        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:  # noqa: ANN401 (typer's own types moved)
            return load(target, name).make_context(info_name, args, parent=parent, **extra)

    def stub() -> None:
        """Never called."""

    app.command(name, help=words, cls=Stub)(stub)


def load(target: str, name: str) -> Any:  # noqa: ANN401
    """Import a command (``module:attribute``)."""
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)
