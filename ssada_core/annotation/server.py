"""The annotation page's server: FastAPI round a :class:`~ssada_core.annotation.workbench.Workbench`.

Needs the extra ``annotate``; nothing imports this module before it is served.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Body, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from ssada_core.annotation.desk import TakenError, Who
from ssada_core.annotation.guard import COOKIE, Guard, TooLargeError, cookie_of, same
from ssada_core.annotation.segments import LEVELS
from ssada_core.annotation.settings import AnnotateSettings
from ssada_core.annotation.workbench import ConflictError, UnknownQueryError, Workbench
from ssada_core.errors import DataError, SsadaError, StoreError

PAGE = Path(__file__).resolve().parent / "page"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_STATUS: tuple[tuple[type[SsadaError], int], ...] = (
    (UnknownQueryError, 404),
    (TooLargeError, 413),
    (TakenError, 409),
    (ConflictError, 409),
    (DataError, 422),
    (StoreError, 503),
)
_LONGEST = 64
"""Characters of a name or an id that are kept."""


def create_app(bench: Workbench, settings: AnnotateSettings) -> Guard:
    """The whole server as an ASGI application.

    Raises:
        ConfigError: if the settings leave the door open.
    """
    settings.check()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(SsadaError, _on_error)
    _add_page(app, settings)
    _add_views(app, bench)
    _add_work(app, bench)
    return Guard(app, settings)


def _on_error(_request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse({"why": str(error)}, status)


def _who(
    x_holder: Annotated[str, Header()] = "",
    x_person: Annotated[str, Header()] = "",
    x_name: Annotated[str, Header()] = "",
) -> Who:
    """Who asks; nobody is trusted more for what they say here."""
    name = " ".join(unquote(x_name).split())[:_LONGEST]
    return Who(x_holder[:_LONGEST] or "api", x_person[:_LONGEST] or "api", name)


Visitor = Annotated[Who, Depends(_who)]


def _add_page(app: FastAPI, settings: AnnotateSettings) -> None:
    files = {path.name: path for path in PAGE.iterdir() if path.suffix in _KINDS}

    @app.get("/")
    def index(request: Request) -> Response:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}
        known = Guard(app, settings).known(headers)
        text = (PAGE / ("index.html" if known else "login.html")).read_text(encoding="utf-8")
        return HTMLResponse(text, 200 if known else 401)

    @app.get("/page/{name}")
    def file(name: str) -> Response:
        if name not in files:
            return PlainTextResponse("no such file", 404)
        return FileResponse(files[name], media_type=_KINDS[files[name].suffix])

    @app.post("/login")
    def login(token: Annotated[str, Body(embed=True, max_length=1024)]) -> Response:
        if not settings.token or not same(token, settings.token):
            return JSONResponse({"why": "that is not the token"}, 401)
        answer = JSONResponse({})
        answer.set_cookie(COOKIE, cookie_of(settings.token), httponly=True, samesite="strict", path="/")
        return answer


def _add_views(app: FastAPI, bench: Workbench) -> None:
    @app.get("/api/state")
    def state(who: Visitor) -> dict[str, Any]:
        return bench.overview(who.person)

    @app.get("/api/queries/{query_id}/thumbnail")
    def thumbnail(query_id: str) -> Response:
        return Response(bench.thumbnail(query_id), media_type="image/jpeg")

    @app.get("/api/queries/{query_id}/image")
    def image(query_id: str) -> Response:
        return Response(bench.image(query_id), media_type="image/jpeg")

    @app.get("/api/queries/{query_id}/prediction")
    def prediction(query_id: str) -> Response:
        return _planes(bench.prediction(query_id))

    @app.get("/api/queries/{query_id}/label")
    def label(query_id: str) -> Response:
        return _planes(bench.label(query_id))

    @app.get("/api/queries/{query_id}/draft")
    def draft(query_id: str, who: Visitor) -> Response:
        return _planes(bench.draft(query_id, who.person))

    @app.get("/api/queries/{query_id}/superpixels/{level}")
    def segments(query_id: str, level: int) -> Response:
        if not 0 <= level < len(LEVELS):
            raise UnknownQueryError(f"superpixels have levels 0 to {len(LEVELS) - 1}")
        data = bench.superpixels(query_id, level)
        return Response(data, media_type="application/octet-stream", headers={"content-encoding": "deflate"})


def _planes(data: bytes | None) -> Response:
    if data is None:
        return Response(status_code=204)
    packed = zlib.compress(data, 1)
    return Response(packed, media_type="application/octet-stream", headers={"content-encoding": "deflate"})


def _add_work(app: FastAPI, bench: Workbench) -> None:
    @app.post("/api/queries/{query_id}/open")
    def take(query_id: str, who: Visitor, force: bool = False) -> dict[str, Any]:
        return bench.open(query_id, who, force=force)

    @app.post("/api/queries/{query_id}/keep")
    def keep(query_id: str, who: Visitor) -> dict[str, Any]:
        bench.keep(query_id, who)
        return {}

    @app.post("/api/queries/{query_id}/close")
    def close(query_id: str, who: Visitor) -> dict[str, Any]:
        bench.close(query_id, who.holder)
        return {}

    @app.put("/api/queries/{query_id}/draft")
    async def save(
        query_id: str, request: Request, who: Visitor, versions: Annotated[int | None, Query(ge=0)] = None
    ) -> dict[str, Any]:
        png = await request.body()
        return {"saved_at": await run_in_threadpool(bench.save_draft, query_id, who, png, versions=versions)}

    @app.delete("/api/queries/{query_id}/draft")
    def drop(query_id: str, who: Visitor) -> dict[str, Any]:
        bench.drop_draft(query_id, who)
        return {}

    @app.post("/api/queries/{query_id}/label")
    async def submit(
        query_id: str, request: Request, who: Visitor, versions: int | None = None, confirmed: bool = False
    ) -> dict[str, Any]:
        png = await request.body()
        result = await run_in_threadpool(bench.submit, query_id, who, png, versions=versions, confirmed=confirmed)
        answer = {"query_id": result.query_id, "status": result.status, "why": result.why}
        return {**answer, "versions": await run_in_threadpool(bench.versions, query_id)}

    @app.post("/api/queries/{query_id}/skip")
    def skip(query_id: str, who: Visitor, reason: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        bench.skip(query_id, who, reason)
        return {}

    @app.post("/api/queries/{query_id}/reject")
    def reject(query_id: str, who: Visitor, reason: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        bench.reject(query_id, who, reason)
        return {}
