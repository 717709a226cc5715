"""The server: routes, and a socket on this machine alone."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from emcache.errors import EmcacheError, UsageError
from emcache.storage.workspace import Workspace
from emcache.views.programs import read_static
from emcache_cli.serving.answers import Answers
from emcache_cli.serving.guard import PARAMETER, Guard

_ADDRESS = "127.0.0.1"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:"
)
_MOST_LISTED = 500

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/static/workspace.css">
</head>
<body>
<div id="app"><noscript>This page needs JavaScript.</noscript></div>
<script src="/static/workspace.js"></script>
</body>
</html>
"""

Ask = Callable[[Request], Any]


@dataclass(frozen=True, slots=True)
class Served:
    """A server that listens, and runs when it is told to."""

    server: uvicorn.Server
    socket: socket.socket
    address: str
    """Where to open it, with the token."""

    def run(self) -> None:
        """Serve until Ctrl-C."""
        self.server.run(sockets=[self.socket])


def make_server(workspace: Workspace, port: int, device: str) -> Served:
    """Listen on this machine.

    Args:
        workspace: What to show.
        port: Where; 0 for any that is free.
        device: Where runs predict.

    Raises:
        UsageError: The port is taken, or not for everyone.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_ADDRESS, port))
        # Now, so that whoever opens the printed address at once waits and is not refused.
        listener.listen()
    except OSError as error:
        listener.close()
        why = "taken" if error.errno == errno.EADDRINUSE else f"not to be had ({error.strerror})"
        raise UsageError(
            f"port {port} is {why}; choose another --port, or 0 for any that is free.", subject=port
        ) from error
    taken = listener.getsockname()[1]
    token = secrets.token_urlsafe(24)
    app = Guard(make_app(Answers(workspace, device), workspace.root.name), token, taken)
    # Its log would hold addresses with the token.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, lifespan="off"
    )
    address = f"http://{_ADDRESS}:{taken}/?{PARAMETER}={token}"
    return Served(uvicorn.Server(config), listener, address)


def make_app(answers: Answers, name: str) -> Starlette:
    """The routes; whoever asks has been looked at by :class:`~.guard.Guard`.

    Args:
        answers: What they answer.
        name: Of the workspace, for titles.
    """
    page = _PAGE.format(title=f"{escape(name)} in emcache")

    async def home(_: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": _POLICY})

    async def static(request: Request) -> Response:
        file = request.path_params["name"]
        if file not in ("workspace.js", "workspace.css"):
            return Response(status_code=404)
        kind = "text/javascript" if file.endswith("js") else "text/css"
        return Response(read_static(file), media_type=kind)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/static/{name}", static),
            _json("/api/workspace", lambda _: answers.workspace()),
            _json("/api/features", lambda _: answers.feature_sets()),
            _json("/api/datasets/{name}/slices", lambda r: _slices(answers, r)),
            _json("/api/tables/{name}", lambda r: answers.table(r.path_params["name"])),
            _html("/charts/{name}", lambda r: answers.chart(r.path_params["name"])),
            _html("/explore", lambda r: _explorer(answers, r)),
        ],
        exception_handlers={EmcacheError: _said},
    )


def _slices(answers: Answers, request: Request) -> dict[str, Any]:
    asked = request.query_params
    start, count = _number(asked, "start", 0), _number(asked, "count", 100)
    name = request.path_params["name"]
    return answers.slices(name, asked.get("text", ""), start, min(count, _MOST_LISTED))


def _explorer(answers: Answers, request: Request) -> bytes:
    asked = request.query_params
    edge = min(max(_number(asked, "edge", 768), 64), 2048)
    return answers.explorer(
        asked.getlist("slice"), asked.get("features") or None, asked.getlist("run"), edge
    )


def _number(asked: QueryParams, name: str, otherwise: int) -> int:
    text = asked.get(name, str(otherwise))
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{name}={text!r:.40} is no number; expected digits.", subject=text)
    return int(text)


def _json(path: str, ask: Ask) -> Route:
    async def answer(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(ask, request))

    return Route(path, answer)


def _html(path: str, ask: Ask) -> Route:
    async def answer(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(ask, request))

    return Route(path, answer)


async def _said(request: Request, error: Exception) -> Response:
    """A user's mistake, or what is wrong with the data: a sentence."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": str(error)}, 422)
    return PlainTextResponse(f"{error}\n", 422)
