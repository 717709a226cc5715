"""Options in groups: a dataclass with a panel of the help, given to a command as one object.

A field of a group is an option, declared once for every command that takes the group. Groups are
made without comparison and representation, which nobody needs: each costs the start of every
command.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

PANEL = "PANEL"
"""Class attribute of a group: the title of its panel."""


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups: every parameter whose annotation is one becomes its options."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        each.name: each.annotation
        for each in signature.parameters.values()
        if is_dataclass(each.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for each in signature.parameters.values():
        if each.name in groups:
            parameters += _options(groups[each.name])
        else:
            parameters.append(each.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        # All of them first: a group may be called as an option of another is.
        built = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**given, **built)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    del run.__wrapped__
    return run


@functools.cache
def _hints(group: Any) -> dict[str, Any]:
    """Evaluated once, for all the commands that take a group."""
    return get_type_hints(group, include_extras=True)


def _options(group: Any) -> Iterator[inspect.Parameter]:
    hints = _hints(group)
    for field in fields(group):
        kind, declared = get_args(hints[field.name])
        option = copy.copy(declared)
        option.rich_help_panel = getattr(group, PANEL)
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=Annotated[kind, option],
        )
