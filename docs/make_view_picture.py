"""Make the picture of ``liif view``: a screenshot of its page, in the Chromium of the system.

    python docs/make_view_picture.py [FOLDER]

The photograph is scikit-image's "cat" (CC0), the model is the included one, "clean".
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from skimage import data

import liif_core
from liif_core.view.gallery import Gallery, NamedModel
from liif_core.view.opening import entry_of
from liif_core.view.running import start
from liif_core.view.server import Server

PICTURES = ["view.png"]
SCALE, CENTER = 12, (168, 114)  # (x, y) in pixels of the photograph: an eye
LOADED = """() => {
    const { world } = OpenSeadragon.getViewer(document.getElementById("picture"));
    const items = Array.from({ length: world.getItemCount() }, (_, i) => world.getItemAt(i));
    return items.every((item) => item.getFullyLoaded());
}"""
MOVE = """([x, y, scale, width, height]) => {
    const { viewport, container } = OpenSeadragon.getViewer(document.getElementById("picture"));
    const shown = container.clientWidth / scale / width;
    const tall = container.clientHeight / scale / width;
    viewport.fitBounds(new OpenSeadragon.Rect(x / width - shown / 2, y / width - tall / 2, shown, tall), true);
}"""


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        photograph = Path(work, "cat.png")
        Image.fromarray(data.chelsea()).save(photograph)
        entry = entry_of("cat.png", photograph, [NamedModel("clean", liif_core.load("clean"))], 10**9)
        running = start(Server(Gallery.within(10**9, {entry.id: entry}, 16)), port=0)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 640})
        page.goto(running.url)
        page.wait_for_selector("#encoding:has-text('encoded in')")
        height, width = data.chelsea().shape[:2]
        page.evaluate(MOVE, [*CENTER, SCALE, width, height])
        page.keyboard.press("c")
        page.wait_for_function(LOADED)
        page.mouse.move(620, 300)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "view.png")
        browser.close()
        running.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("pictures"))
