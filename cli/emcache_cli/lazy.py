"""Groups of commands that are built when one of them is asked for, so that help stays instant."""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def lazy_group(module: str, about: str) -> typer.Typer:
    """A group whose commands stand in a module of this package.

    Args:
        module: Its name; its ``app`` has the commands.
        about: What the group is for.
    """

    class Group(TyperGroup):
        @property
        def commands(self) -> MutableMapping[str, Any]:
            return _commands_of(module)

        @commands.setter
        def commands(self, found: object) -> None:
            """What typer knows of the group before it is built: nothing."""

    return typer.Typer(cls=Group, help=about, no_args_is_help=True)


@cache
def _commands_of(module: str) -> MutableMapping[str, Any]:
    group: Any = typer.main.get_group(import_module(f"emcache_cli.{module}").app)
    commands: MutableMapping[str, Any] = group.commands
    return commands
