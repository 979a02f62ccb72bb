"""The web server of the viewer: the page, IIIF images of every layer, and an interface of JSON for the page."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from importlib import resources
from urllib.parse import quote, unquote_to_bytes

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from liif_core.errors import UserError
from liif_core.version import __version__
from liif_core.view import iiif
from liif_core.view.gallery import INTERPOLATIONS, MODELS, Gallery, ViewedPicture
from liif_core.view.saving import FORMATS, MAX_SIDE, Save, SaveRequest, Saves
from liif_core.view.tiles import Disconnected, Tiles
from liif_core.view.work_queue import WorkQueue

_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag, Link, Server-Timing"}
_PREFLIGHT = {**_CORS, "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Allow-Headers": "*"}
_POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors *"
_PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PREVIEW_SECONDS = 0.4  # in which a page can show a preview before encoding keeps the processor busy
_MOST_JSON = 10_000  # bytes of a request's body

Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Answers requests about the pictures of a gallery. ``application`` is the ASGI application.

    ``hosts`` are the names under which requests may reach it ("*": any), so that no other web site can have a name of
    its own lead here. ``close`` ends all work and removes temporary files.
    """

    def __init__(
        self, gallery: Gallery, folder: str | None = None, hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    ):
        self.gallery, self.folder = gallery, folder
        self.queue = WorkQueue(gallery.background)
        self.tiles = Tiles(gallery.cache, self.queue)
        self.saves = Saves(self.queue, gallery.memory)
        self._token = secrets.token_hex(8)  # in all ETags: another run may have other pictures and models
        self.application = Starlette(
            routes=[
                Route("/", self._page),
                Route("/static/{name}", self._page),
                Route("/iiif/{rest:path}", self._iiif, methods=["GET", "OPTIONS"]),
                Route("/api/session", self._json(self._session)),
                Route("/api/images/{image:path}", self._json(self._image)),
                Route("/api/saves", self._json(self._start_save), methods=["POST"]),
                Route("/api/saves/{save}", self._json(self._save), methods=["GET", "DELETE"]),
                Route("/api/saves/{save}/file", self._json(self._saved_file)),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))],
        )

    def close(self) -> None:
        """End all work."""
        self.queue.close()
        self.saves.close()

    # The page

    async def _page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        file = resources.files(__package__).joinpath("page", name)
        suffix = name[name.rfind(".") :]
        if "/" in name or "\\" in name or suffix not in _TYPES or not file.is_file():
            raise HTTPException(404, "no such file")
        return Response(file.read_bytes(), media_type=_TYPES[suffix], headers=_PAGE_HEADERS)

    def _json(self, handler: Handler) -> Handler:
        """The handler, with errors as JSON; only for the page: no other site may read the answers."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except iiif.BadRequest as error:
                return JSONResponse({"error": str(error)}, error.status)
            except UserError as error:
                return JSONResponse({"error": str(error)}, 422)

        return answer

    async def _session(self, request: Request) -> Response:
        entries = self.gallery.entries.values()
        return JSONResponse(
            {
                "version": __version__,
                "zoom": self.gallery.zoom,
                "folder": self.folder is not None,
                "title": self.folder if self.folder is not None else next(iter(self.gallery.entries), ""),
                "images": [{"id": entry.id, "name": entry.id, "problem": entry.problem} for entry in entries],
                "layers": [*self._model_layers(), *_INTERPOLATION_LAYERS],
                "save": {"formats": list(FORMATS), "max_side": MAX_SIDE},
            },
            headers={"Cache-Control": "no-store"},
        )

    def _model_layers(self) -> list[dict[str, str]]:
        names: dict[str, dict[str, None]] = {}  # of the models of each layer
        for entry in self.gallery.entries.values():
            for layer, each in zip(MODELS, entry.models):
                names.setdefault(layer, {})[each.name] = None
        return [{"id": layer, "kind": "model", "name": " or ".join(found)} for layer, found in names.items()]

    async def _image(self, request: Request) -> Response:
        picture = await self._picture(request.path_params["image"])
        if self.gallery.current is not picture:
            self.gallery.current = picture
            asyncio.get_running_loop().call_later(_PREVIEW_SECONDS, self.queue.wake)  # it is encoded
        return JSONResponse(picture.as_json(), headers={"Cache-Control": "no-store"})

    async def _picture(self, name: str) -> ViewedPicture:
        if name not in self.gallery.entries:
            raise iiif.BadRequest(f"no image {name!r}", 404)
        return await run_in_threadpool(self.gallery.picture, name)

    # Saves

    async def _start_save(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise iiif.BadRequest("expected a body of application/json", 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_JSON:
                raise iiif.BadRequest(f"expected at most {_MOST_JSON} bytes", 413)
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            raise iiif.BadRequest("the body is not JSON") from None
        wanted = SaveRequest.of(given)
        save = self.saves.start(await self._picture(wanted.image), wanted)
        return JSONResponse(save.as_json(), 201)

    async def _save(self, request: Request) -> Response:
        save = self._found_save(request)
        if request.method == "DELETE":
            self.saves.cancel(save)
        return JSONResponse(save.as_json(), headers={"Cache-Control": "no-store"})

    async def _saved_file(self, request: Request) -> Response:
        save = self._found_save(request)
        if save.state != "done":
            raise iiif.BadRequest(f"the file is not ready: its state is {save.state!r}", 409)
        return FileResponse(save.path, media_type=save.media_type, filename=save.name)

    def _found_save(self, request: Request) -> Save:
        save = self.saves.get(request.path_params["save"])
        if save is None:
            raise iiif.BadRequest("no such save", 404)
        return save

    # IIIF

    async def _iiif(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_PREFLIGHT)
        try:
            return await self._iiif_answer(request)
        except iiif.BadRequest as error:
            return Response(str(error), error.status, _CORS, "text/plain")
        except UserError as error:  # the picture cannot be read, or the model failed
            return Response(str(error), 500, _CORS, "text/plain")
        except ValueError as error:  # a scale that the model cannot render
            return Response(str(error), 400, _CORS, "text/plain")
        except Disconnected:
            return Response(status_code=499)  # which nobody receives
        except Exception as error:  # out of the code of a plugin
            return Response(f"rendering failed: {type(error).__name__}: {error}", 500, _CORS, "text/plain")

    async def _iiif_answer(self, request: Request) -> Response:
        layer, name, *rest = _segments(request)
        if layer not in INTERPOLATIONS and layer not in MODELS:
            raise iiif.BadRequest(f"no layer {layer!r}", 404)
        if name not in self.gallery.entries or len(rest) not in (0, 1, 4):
            raise iiif.BadRequest(f"no image {name!r}", 404)
        picture = await self._picture(name)
        if layer not in INTERPOLATIONS and layer not in picture.encoded:
            raise iiif.BadRequest(f"no layer {layer!r} of this image", 404)
        identifier = f"{str(request.base_url).rstrip('/')}/iiif/{quote(layer)}/{quote(name, safe='')}"
        if not rest:
            return RedirectResponse(f"{identifier}/info.json", 303, headers=_CORS)
        if len(rest) == 1:
            return self._info(request, picture, identifier, rest[0])
        region, size, rotation, last = rest
        wanted = iiif.parse(region, size, rotation, last, picture.full)
        links = f'<{iiif.COMPLIANCE}>;rel="profile", <{identifier}/{wanted.canonical}>;rel="canonical"'
        headers = {**self._kept(layer, name, wanted.canonical), "Link": links}
        if _is_kept(request, headers):
            return Response(status_code=304, headers=headers)
        data, timing = await self.tiles.get(request, picture, layer, wanted)
        return Response(data, media_type=iiif.FORMATS[wanted.format], headers={**headers, "Server-Timing": timing})

    def _info(self, request: Request, picture: ViewedPicture, identifier: str, name: str) -> Response:
        if name != "info.json":
            raise iiif.BadRequest(f"{name!r}: expected info.json, or region, size, rotation and quality.format", 404)
        as_ld = "application/ld+json" in request.headers.get("accept", "")
        media_type = f'application/ld+json;profile="{iiif.CONTEXT}"' if as_ld else "application/json"
        links = f'<{iiif.COMPLIANCE}>;rel="profile"'
        headers = {**self._kept(identifier, media_type), "Link": links, "Content-Type": media_type, "Vary": "Accept"}
        if _is_kept(request, headers):
            return Response(status_code=304, headers=headers)
        return JSONResponse(iiif.description(identifier, picture.full, "png"), headers=headers)

    def _kept(self, *what: str) -> dict[str, str]:
        """The headers with which a browser keeps an answer, and asks each time whether it still holds."""
        tag = hashlib.sha256("\0".join([self._token, *what]).encode()).hexdigest()[:32]
        return {**_CORS, "ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}


_INTERPOLATION_LAYERS = [{"id": layer, "kind": "interpolation", "name": layer.capitalize()} for layer in INTERPOLATIONS]


def _segments(request: Request) -> list[str]:
    """The segments after ``/iiif/``, decoded one by one: an identifier may hold an escaped slash."""
    raw = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    root = quote(request.scope.get("root_path", "")).encode()
    path = raw.partition(b"?")[0].removeprefix(root).removeprefix(b"/iiif/")
    try:
        segments = [unquote_to_bytes(segment).decode() for segment in path.split(b"/")]
    except UnicodeDecodeError:
        raise iiif.BadRequest("the path is not UTF-8", 400) from None
    if segments[-1] == "":
        segments.pop()
    if len(segments) < 2:
        raise iiif.BadRequest("expected /iiif/LAYER/IMAGE", 404)
    return segments


def _is_kept(request: Request, headers: dict[str, str]) -> bool:
    return headers["ETag"] in request.headers.get("if-none-match", "")
