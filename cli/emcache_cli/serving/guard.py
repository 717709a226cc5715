"""Who may ask: programs of this machine that know the token, by the server's own name.

Another page in the same browser could send requests to this machine too. It cannot know the token,
and is refused by its Origin; a name of its own that leads to this machine is refused by its Host.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARAMETER = "token"
"""Name of the token in an address."""

_READING = ("GET", "HEAD")
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The address may hold the token.
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
}


class Guard:
    """Lets through what may ask, and nothing that would write."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        """Stand before a server.

        Args:
            app: The server.
            token: What the address must hold, or the cookie that the first answer sets.
            port: Where it listens.
        """
        self._app = app
        self._token = token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        # Cookies know no ports: each server of this machine has one of its own.
        self._cookie = f"emcache-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else _refused("no such thing")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.get("host") not in self._hosts:
            return _refused("this server answers to 127.0.0.1 and localhost alone")
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return _refused("another page asked")
        if scope["method"] not in _READING:
            return _refused("this server only shows", 405)
        asked = parse_qsl(scope["query_string"].decode("latin-1"))
        given = [value for name, value in asked if name == PARAMETER]
        if given and self._is_token(given[-1]):
            # The address without the token is what stays in the browser's history.
            rest = urlencode([pair for pair in asked if pair[0] != PARAMETER])
            found = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            found.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return found
        if not self._is_token(self._cookie_of(headers)):
            return _refused("the token is missing; open the address that `emcache serve` printed")
        return None

    def _cookie_of(self, headers: Headers) -> str:
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return "" if kept is None else kept.value

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())


def _refused(why: str, status: int = 403) -> Response:
    return PlainTextResponse(f"Refused: {why}.\n", status)
