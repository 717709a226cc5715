"""``emcache runs list | show | hide | unhide``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.groups import with_groups
from emcache_cli.options import ChoiceOptions, FormatOption, WorkspaceOption

app = typer.Typer()

RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Their names, or parts that no other has.")
]


@app.command("list")
@with_groups
def list_(
    choice: ChoiceOptions, output_format: FormatOption = None, workspace: WorkspaceOption = None
) -> None:
    """List the runs, newest first."""
    from emcache_cli.asking import choose
    from emcache_cli.console import Console, show

    show(choose("runs", choice.choice(), workspace, Console()), output_format)


@app.command("show")
def show_(
    run: Annotated[str, typer.Argument(help="Its name, or a part that no other has.")],
    output_format: FormatOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show everything about a run, and its scores."""
    from emcache_cli.asking import describe_run
    from emcache_cli.console import Console, show_object

    facts = describe_run(run, workspace, Console())
    show_object(facts, facts["scores"], output_format)


@app.command()
def hide(
    runs: RunsArgument,
    why: Annotated[str, typer.Option(metavar="REASON", help="Kept, and shown on request.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Set runs aside: scores, charts and the report leave them out. Nothing is deleted."""
    from emcache.evaluation.evaluate import mark_runs
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console
    from emcache_cli.summaries import describe_mark

    record = mark_runs(find_workspace(workspace), runs, hidden=True, why=why)
    Console().say(describe_mark(record))


@app.command()
def unhide(
    runs: RunsArgument,
    why: Annotated[str | None, typer.Option(metavar="REASON", help="Kept with the record.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Take runs back that were set aside."""
    from emcache.evaluation.evaluate import mark_runs
    from emcache.storage.workspace import find_workspace
    from emcache_cli.console import Console
    from emcache_cli.summaries import describe_mark

    record = mark_runs(find_workspace(workspace), runs, hidden=False, why=why)
    Console().say(describe_mark(record))
