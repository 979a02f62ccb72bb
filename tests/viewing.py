"""Pictures, and the viewer's server over them, for tests."""

import contextlib
import io
from urllib.parse import quote

import httpx
import numpy as np
from PIL import Image

from liif_core.view.gallery import Gallery
from liif_core.view.running import start
from liif_core.view.server import Server

MEMORY = 400_000_000


class Viewer:
    """A running server, and a client of it."""

    def __init__(self, running):
        self.running, self.server, self.url = running, running.server, running.url
        self.client = httpx.Client(base_url=running.url, timeout=60)

    def get(self, path, **options):
        return self.client.get(path, **options)

    def tile(self, name, layer, request):
        """The pixels of an IIIF request, which must succeed."""
        answer = self.get(f"iiif/{layer}/{quote(name, safe='')}/{request}")
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))


@contextlib.contextmanager
def viewing(entries, zoom=16.0, memory=MEMORY, folder=None, **options):
    running = start(Server(Gallery.within(memory, entries, zoom), folder, **options), port=0)
    viewer = Viewer(running)
    try:
        yield viewer
    finally:
        viewer.client.close()
        running.stop()


def smooth(height, width, channels=3, seed=0):
    """A random picture without hard edges, uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    parts = [
        Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in small.transpose(2, 0, 1)
    ]
    return np.stack([np.asarray(part) for part in parts], axis=-1)
