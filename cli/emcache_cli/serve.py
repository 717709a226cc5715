"""``emcache serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from emcache_cli.options import DeviceOption, WorkspaceOption


def serve(
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Where; 0 for any that is free.")
    ] = 8741,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = False,
    device: DeviceOption = "auto",
    workspace: WorkspaceOption = None,
) -> None:
    """Show the workspace in a browser of this machine, read-only, until Ctrl-C."""
    from emcache_cli.console import Console
    from emcache_cli.serving_start import serve_workspace

    serve_workspace(workspace, port, device, Console(), browser=browser)
