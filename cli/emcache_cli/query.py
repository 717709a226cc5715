"""``emcache query``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import ChoiceOptions, FormatOption, WorkspaceOption


@with_groups
def query(
    sql: Annotated[
        str | None,
        typer.Argument(metavar="SQL|-", help="One SQL statement, or - for standard input."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="A named query instead; --list names them.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help="Value of $KEY in the statement."),
    ] = None,
    list_queries: Annotated[
        bool, typer.Option("--list", help="List the named queries and their parameters.")
    ] = False,
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe",
            help="Let the SQL read and write files, attach databases and install extensions; only "
            "for SQL that you trust. The warehouse itself stays read-only.",
        ),
    ] = False,
    output_format: FormatOption = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead.")] = None,
    chart: Annotated[
        str | None,
        typer.Option(metavar="MARK", help="Draw it: bar, line, point, tick, area, boxplot."),
    ] = None,
    x: Annotated[str | None, typer.Option("-x", metavar="COL", help="Column across.")] = None,
    y: Annotated[str | None, typer.Option("-y", metavar="COL", help="Column upward.")] = None,
    workspace: WorkspaceOption = None,
    *,
    choice: ChoiceOptions,
) -> None:
    """Ask the warehouse, read-only, after taking in what is new.

    A table on a terminal, JSON when piped. With --chart, --out names the picture (.html, .png,
    .svg or .json).
    """
    from emcache_cli.asking import Question, answer, named_query_rows
    from emcache_cli.console import Console, show, show_rows

    if list_queries:
        show_rows(named_query_rows(), output_format)
        return
    question = Question(sql, name, parameter or [], choice.choice(), unsafe)
    frame = answer(question, workspace, Console())
    if chart is None and x is None and y is None:
        show(frame, output_format, out)
    else:
        # Altair takes a while to import.
        from emcache_cli.drawing import draw_query

        draw_query(frame, chart, x, y, out, Console())
