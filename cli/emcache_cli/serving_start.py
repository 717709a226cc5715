"""Starting the server, where its packages are installed."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from emcache.errors import UsageError
from emcache.progress import Reporter
from emcache.storage.workspace import find_workspace


def serve_workspace(
    given: Path | None, port: int, device: str, reporter: Reporter, *, browser: bool
) -> None:
    """Serve a workspace until Ctrl-C.

    Args:
        given: The workspace; None for the one that is found.
        port: Where to listen; 0 for any that is free.
        device: Where runs predict.
        reporter: Receives the address.
        browser: Whether to open it.

    Raises:
        UsageError: The port is taken, or a package is missing.
    """
    workspace = find_workspace(given)
    try:
        from emcache_cli.serving.server import make_server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"{error.name} is not installed; install it with `pip install 'emcache[serve]'`."
        ) from error
    served = make_server(workspace, port, device)
    reporter.say(f"{workspace.root} at {served.address}")
    reporter.say(
        "Only programs of this machine that know this address can read it; Ctrl-C ends it."
    )
    if browser:
        webbrowser.open(served.address)
    served.run()
