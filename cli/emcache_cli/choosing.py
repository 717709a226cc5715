"""Options that choose what a figure or a table shows, declared once for many commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

Chosen = Mapping[str, Any]
"""Arguments of :class:`emcache_warehouse.choice.Choice`, whose import takes a while."""

_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "where": (
        Annotated[
            str | None,
            typer.Option(metavar="SQL", help="Only rows of which this condition of SQL holds."),
        ],
        None,
    ),
    "datasets": (
        Annotated[
            list[str] | None,
            typer.Option("--dataset", metavar="NAME", help="Only what is about it; several too."),
        ],
        None,
    ),
    "backbones": (
        Annotated[
            list[str] | None,
            typer.Option("--backbone", metavar="NAME", help="Only this one; several too."),
        ],
        None,
    ),
    "regimes": (
        Annotated[
            list[str] | None,
            typer.Option("--regime", metavar="frozen|lora", help="Only this one."),
        ],
        None,
    ),
    "runs": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--run", metavar="RUN", help="Only runs with this in their names; several too."
            ),
        ],
        None,
    ),
    "latest": (
        Annotated[
            bool,
            typer.Option(
                "--latest",
                help="Of runs that differ in protocol and arithmetic alone, the newest; of "
                "measurements, the newest.",
            ),
        ],
        False,
    ),
    "hidden": (
        Annotated[
            bool, typer.Option("--hidden", help="Show runs too that were set aside (emcache runs).")
        ],
        False,
    ),
    "label": (
        Annotated[
            str | None,
            typer.Option(metavar="COLUMN", help="Label bars and panels by this column alone."),
        ],
        None,
    ),
}


def choosing(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that choose; it gets them as one argument ``choice``.

    Args:
        left_out: Options that mean nothing to it.
    """
    taken = {name: each for name, each in _OPTIONS.items() if name not in left_out}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != "choice"]
        workspace = next(i for i, each in enumerate(own) if each.name == "workspace")
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for name, (kind, default) in taken.items()
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            given_choice = {name: given.pop(name) for name in taken}
            command(**given, choice={k: v for k, v in given_choice.items() if v})

        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in (*own[:workspace], *added, *own[workspace:])
        ]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        del run.__wrapped__
        return run

    return decorate
