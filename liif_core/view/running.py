"""Running the viewer's server in a thread of this process."""

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import uvicorn
from attrs import define

from liif_core.errors import UserError
from liif_core.view.iiif import TILE
from liif_core.view.server import Server

PORT = 8765  # where it is free; else any other
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_ANY = ("0.0.0.0", "::", "")


@define(eq=False)
class Running:
    """A server that runs until ``stop``. ``url`` ends with a slash."""

    server: Server
    url: str
    port: int
    _uvicorn: uvicorn.Server
    _thread: threading.Thread

    def warm_up(self, name: str) -> None:
        """Ask for a small preview of an image, so that the first page does not wait for modules to be imported."""
        path = f"iiif/bicubic/{quote(name, safe='')}/full/{TILE},/0/default.png"
        with suppress(OSError), build_opener(ProxyHandler({})).open(f"{self.url}{path}", timeout=10) as answer:
            answer.read()

    def wait(self) -> None:
        """Return when the server has ended."""
        while self._thread.is_alive():  # in short intervals, so that signals are noticed on every system
            self._thread.join(0.5)

    def stop(self) -> None:
        """End the server, and all work in it."""
        self._uvicorn.should_exit = True
        self.server.close()
        self._thread.join(5)


def allowed_hosts(host: str) -> tuple[str, ...]:
    """The names by which a server at this address is asked."""
    if host in _ANY:
        return ("*",)
    # old versions of Starlette cut the name of the request at its first colon
    return (*_LOCAL, host, f"[{host}]", "[") if ":" in host else (*_LOCAL, host)


def start(server: Server, host: str = "127.0.0.1", port: int | None = None) -> Running:
    """Listen at ``host`` and ``port``; without a port, at 8765 or, where that is taken, at any free one.

    Raises UserError for an address that cannot be used.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        server.application, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1,
        timeout_keep_alive=60, ws="none",
    )  # fmt: skip
    running = uvicorn.Server(config)
    thread = threading.Thread(
        target=running.run, kwargs={"sockets": [listening]}, name="liif-view-server", daemon=True
    )  # fmt: skip
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.005)
    actual = listening.getsockname()[1]
    shown = "127.0.0.1" if host in _ANY else f"[{host}]" if ":" in host else host
    return Running(server, f"http://{shown}:{actual}/", actual, running, thread)


def _listen(host: str, port: int | None) -> socket.socket:
    ports = [PORT, 0] if port is None else [port]
    for number in ports:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, number))
            listening.listen(128)
            return listening
        except (OSError, OverflowError) as error:
            listening.close()
            if number != PORT or port is not None:
                reason = getattr(error, "strerror", None) or str(error)
                place = f"--host {host}" + ("" if port is None else f" --port {port}")
                advice = "" if port is None else "; choose another --port, or leave it out for a free one"
                raise UserError(f"{place}: cannot listen there ({reason}){advice}") from None
    raise AssertionError("the last port is any")
