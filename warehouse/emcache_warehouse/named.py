"""Named queries: the SQL files of ``queries/``, each with a header that says what it answers.

The header is a comment::

    -- One line that says what the query answers.
    -- parameter: limit = 20, how many rows
    -- columns: run_id, eval_on, iou_fg
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from emcache.errors import UsageError, suggest
from emcache_warehouse.packaged import PackagedFile, packaged_files

_PARAMETER = re.compile(r"parameter: (?P<name>\w+) = (?P<default>[^,]*), (?P<meaning>.+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a named query."""

    name: str
    """What stands after ``$`` in the SQL and before ``=`` on the command line."""
    default: str
    """Its value where none is given, as it would be typed."""
    meaning: str
    """What it does."""


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A query that the package carries."""

    name: str
    """``worst-slices``."""
    description: str
    """One line that says what it answers."""
    parameters: tuple[Parameter, ...]
    """What can be set, each with its default."""
    columns: tuple[str, ...]
    """Columns of the result."""
    sql: str
    """The statement, with ``$name`` where a parameter goes."""

    def with_defaults(self, given: Mapping[str, str]) -> dict[str, str]:
        """The given values, and the defaults of the others.

        An unknown name is kept; :func:`emcache_warehouse.query.run_query` refuses it.
        """
        return {item.name: item.default for item in self.parameters} | dict(given)


def list_queries() -> list[NamedQuery]:
    """All named queries, in order of their names."""
    return sorted(map(_parse, packaged_files("queries")), key=lambda query: query.name)


def named_query(name: str) -> NamedQuery:
    """Look up a named query.

    Raises:
        UsageError: There is none of that name.
    """
    queries = {query.name: query for query in list_queries()}
    if name in queries:
        return queries[name]
    hint = suggest(name, queries)
    raise UsageError(
        f"there is no query named {name!r}; {hint}The queries are: {', '.join(queries)}.",
        subject=name,
    )


def _parse(file: PackagedFile) -> NamedQuery:
    lines = file.text.splitlines()
    header = []
    for line in lines:
        if not line.startswith("--"):
            break
        header.append(line.removeprefix("--").strip())
    parameters = [match for line in header if (match := _PARAMETER.fullmatch(line))]
    columns = next(line for line in header if line.startswith("columns:"))
    return NamedQuery(
        name=file.stem,
        description=header[0],
        parameters=tuple(
            Parameter(match["name"], match["default"], match["meaning"]) for match in parameters
        ),
        columns=tuple(column.strip() for column in columns.partition(":")[2].split(",")),
        sql="\n".join(lines[len(header) :]).strip().rstrip(";"),
    )
