"""How objects show themselves: one line in a terminal, a small table in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape


def line_of(kind: str, name: str, facts: Mapping[str, object]) -> str:
    """``<Dataset vnc: 20 slices, train 17, test 3>``."""
    listed = ", ".join(f"{key} {value}" for key, value in facts.items())
    return f"<{kind} {name}: {listed}>" if listed else f"<{kind} {name}>"


def table_of(kind: str, name: str, facts: Mapping[str, object]) -> str:
    """The same as a table in HTML."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(key))}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return f"<div><strong>{escape(kind)} {escape(name)}</strong><table>{rows}</table></div>"


class Summarised(ABC):
    """Gives an object its two faces from its name and its facts."""

    _kind: str

    @abstractmethod
    def _facts(self) -> tuple[str, Mapping[str, object]]:
        """The name, and what there is to say."""

    def __repr__(self) -> str:
        return line_of(self._kind, *self._facts())

    def _repr_html_(self) -> str:
        return table_of(self._kind, *self._facts())
