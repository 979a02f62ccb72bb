"""The images of requests: kept ones, interpolated ones, and those that a model renders in the queue."""

import asyncio
import time
from collections.abc import Generator
from typing import Any

from attrs import define
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from liif_core.view import iiif
from liif_core.view.byte_cache import ByteCache
from liif_core.view.gallery import INTERPOLATIONS, ViewedPicture
from liif_core.view.work_queue import Steps, Work, WorkQueue


@define(eq=False)
class _Shared:
    """Work for a tile, and how many requests wait for it."""

    work: Work
    waiting: int = 0


class Disconnected(Exception):
    """The client has gone before its answer was ready."""


class Tiles:
    """Makes the file of each request, and keeps it in ``cache``. Used in the thread of the event loop."""

    def __init__(self, cache: ByteCache, queue: WorkQueue):
        self.cache, self.queue = cache, queue
        self._shared: dict[tuple[str, ...], _Shared] = {}

    async def get(
        self, request: Request, picture: ViewedPicture, layer: str, wanted: iiif.ImageRequest
    ) -> tuple[bytes, str]:
        """The file of a request, and how long it took as a Server-Timing header."""
        by_model = picture.needs_model(wanted, layer)
        kind = layer if by_model or layer in INTERPOLATIONS else "interpolated"
        key = ("tile", picture.entry.id, kind, wanted.canonical)
        kept = self.cache.get(key)
        if kept is not None:
            return kept, "cache;desc=hit"
        if by_model:
            data, seconds = await self._rendered(request, key, picture, layer, wanted)
        else:
            started = time.perf_counter()
            data = await run_in_threadpool(picture.interpolated, wanted, layer)
            seconds = time.perf_counter() - started
        self.cache.put(key, data, len(data))
        return data, f"render;dur={1000 * seconds:.1f}"

    async def _rendered(
        self, request: Request, key: tuple[str, ...], picture: ViewedPicture, layer: str, wanted: iiif.ImageRequest
    ) -> tuple[bytes, float]:
        """What a model renders: computed once for all who wait for it, and no longer than somebody does."""
        shared = self._shared.get(key)
        if shared is None:
            steps = _timed(picture.rendered(wanted, layer))
            shared = self._shared[key] = _Shared(self.queue.submit(_client(request), steps))
        shared.waiting += 1
        result = asyncio.wrap_future(shared.work.future)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise Disconnected
            answer: tuple[bytes, float] = result.result()
            return answer
        except asyncio.CancelledError:  # the server closes
            raise Disconnected from None
        finally:
            gone.cancel()
            shared.waiting -= 1
            if not shared.waiting:
                if not shared.work.future.done():
                    self.queue.cancel(shared.work)
                if self._shared.get(key) is shared:
                    del self._shared[key]


def _client(request: Request) -> str:
    """Who asks: a page names itself; others are told apart by their connection."""
    own = request.headers.get("x-liif-client")
    return own[:60] if own else f"{request.client}"


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timed(steps: Steps) -> Generator[None, None, tuple[Any, float]]:
    """The same steps; the result, and the seconds in which they were done."""
    seconds = 0.0
    try:
        while True:
            started = time.perf_counter()
            try:
                next(steps)
            except StopIteration as end:
                return end.value, seconds + time.perf_counter() - started
            seconds += time.perf_counter() - started
            yield
    finally:
        steps.close()
