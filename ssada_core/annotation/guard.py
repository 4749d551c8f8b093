"""What stands before the annotation page: token, origin, size of uploads, headers of every answer."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from ssada_core.annotation.settings import LOOPBACK, AnnotateSettings
from ssada_core.errors import SsadaError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "ssada_annotate"
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)
_OPEN = frozenset({"/", "/login", "/page/style.css", "/page/login.js"})
"""Paths that answer without a token: the door itself."""
_SAFE = frozenset({"GET", "HEAD"})


class TooLargeError(SsadaError):
    """More came than is taken."""


def cookie_of(token: str) -> str:
    """What a visitor's browser keeps in place of the token: it does not tell it."""
    return hmac.new(token.encode(), b"ssada annotate cookie", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Compare secrets in a time that depends on neither."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(expected.encode()).digest())


class Guard:
    """ASGI middleware round the page."""

    def __init__(self, app: App, settings: AnnotateSettings) -> None:
        self._app = app
        self._token = settings.token
        self._local = settings.host in LOOPBACK
        self._limit = int(settings.max_upload_mb * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer why not."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        guarded = _with_headers(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(guarded, *refusal)
            return
        await self._limited(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if not self._host_fits(headers.get("host", "")):
            return 421, "open the page by its address on this machine"  # another name that leads here: DNS rebinding
        if not _own_origin(scope, headers):
            return 403, "requests from other sites are refused"
        if not self._declared_size_fits(headers.get("content-length", "0")):
            return 413, self._too_large()
        if self._token and scope["path"] not in _OPEN and not self.known(headers):
            return 401, "a token is needed: open the page and give it"
        return None

    def known(self, headers: dict[str, str]) -> bool:
        """Whether a request brings the token, as a bearer or in the cookie."""
        if not self._token:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        by_bearer = same(bearer if scheme.lower() == "bearer" else "", self._token)
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            morsel = None
        return by_bearer | same(morsel.value if morsel is not None else "", cookie_of(self._token))

    def _host_fits(self, host: str) -> bool:
        return not self._local or (urlsplit(f"//{host}").hostname or "") in LOOPBACK

    def _declared_size_fits(self, length: str) -> bool:
        return length.isdigit() and len(length) < 15 and int(length) <= self._limit

    def _too_large(self) -> str:
        return f"at most {self._limit / 1e6:g} MB are taken"

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what really comes: a length may be missing, or a lie."""
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._limit:
                raise TooLargeError(self._too_large())
            return message

        await self._app(scope, counted, send)


def _own_origin(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a request comes from this page, or from no page at all."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        # A link from elsewhere may lead to the page itself, and to nothing that changes or shows anything.
        return scope["method"] in _SAFE and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in HEADERS}
            message["headers"] = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message["headers"] += HEADERS
        await send(message)

    return wrapped


async def _answer(send: Send, status: int, words: str) -> None:
    body = words.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
