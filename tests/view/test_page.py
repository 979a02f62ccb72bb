"""The page of the viewer in a browser, over the real server."""

import contextlib
import io
import re
import shutil
import threading
import time
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from reference import small_model

from liif_core.view.gallery import Gallery, NamedModel, ViewedPicture
from liif_core.view.opening import entry_of, entry_or_problem
from liif_core.view.running import start
from liif_core.view.server import Server

try:
    from playwright.sync_api import Page, sync_playwright
except ImportError:
    pytest.skip('playwright is not installed: pip install "playwright"', allow_module_level=True)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on PATH: install chromium, chromium-browser or google-chrome", allow_module_level=True)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
]  # fmt: skip
MEMORY = 400_000_000
SIZE = 90, 120  # height and width of the pictures
PHOTO, OTHER, CLEAR, BROKEN = "photo one.png", "sub/other.png", "sub/transparent.png", "sub/broken.png"
ROWS = slice(40, 140)  # of the stage: between the names of the layers and the handle of the divider
VIEWER = 'OpenSeadragon.getViewer(document.getElementById("picture"))'
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
LOADED = f"""names => {{
    const viewer = {VIEWER};
    if (!viewer || viewer.world.getItemCount() === 0) return false;
    const items = Array.from({{ length: viewer.world.getItemCount() }}, (_, i) => viewer.world.getItemAt(i));
    const shown = items.filter((item) => item.getOpacity() > 0);
    return names.every((name) => shown.some(({{ source }}) => source._id.startsWith(`iiif/${{name}}/`)))
        && shown.every((item) => item.getFullyLoaded()) && !viewer.isAnimating();
}}"""


def noise(seed: int, channels: int = 3) -> np.ndarray:
    """A picture in which each interpolation looks different."""
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(registry):
    return [small_model(registry, residual="bilinear"), small_model(registry, residual="bilinear", seed=3)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a folder, and their pixels."""
    folder = tmp_path_factory.mktemp("pictures")
    clear = noise(2, 4)
    clear[..., 3] = 255
    clear[:, :60, 3] = 0
    clear[:, 60:90, 3] = 128
    pixels = {PHOTO: noise(0), OTHER: noise(1), CLEAR: clear}
    (folder / "sub").mkdir()
    for name, each in pixels.items():
        Image.fromarray(each).save(folder / name)
    (folder / BROKEN).write_text("not an image")
    return SimpleNamespace(folder=folder, pixels=pixels, names=[*pixels, BROKEN])


@contextlib.contextmanager
def serving(files, models, names=None, folder="pictures"):
    named = [NamedModel(f"small {number}", model) for number, model in enumerate(models, 1)]
    make = entry_of if folder is None else entry_or_problem
    entries = {name: make(name, files.folder / name, named, MEMORY) for name in names or files.names}
    running = start(Server(Gallery.within(MEMORY, entries, 16.0), folder), port=0)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def site(files, models):
    """The address of a server over the folder, with one model."""
    with serving(files, models[:1]) as running:
        yield running.url


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def pages(browser):
    """Makes pages; at the end, nothing may have been wrong on any, and none may have asked another host.

    Errors that contain one of ``expected`` are those that a test provokes.
    """
    contexts, wrong = [], []

    def make(width=1000, height=470, motion=False, expected=(), **options) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion=None if motion else "reduce", **options
        )
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()

        def note(text):
            if not any(part in text for part in expected):
                wrong.append(text)

        page.on("console", lambda message: message.type in ("error", "warning") and note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.on(
            "request",
            lambda request: re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:)", request.url) or note(request.url),
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert wrong == []


def settle(page, *layers):
    """Waits until all visible tiles of these layers are drawn."""
    page.evaluate(TWO_FRAMES)
    page.wait_for_function(LOADED, arg=list(layers))
    page.evaluate(TWO_FRAMES)


def open_image(page, site, name=PHOTO, *layers):
    page.goto(f"{site}#image={quote(name, safe='')}")
    settle(page, *(layers or ["model"]))


def screen(page) -> np.ndarray:
    """What the stage looks like."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def origin(page, scale: int) -> tuple[int, int]:
    """Where on the stage the image begins, (y, x), in pixels."""
    x, y = page.evaluate(f"() => {{ const b = {VIEWER}.viewport.getBounds(true); return [b.x, b.y]; }}")
    return round(-y * SIZE[1] * scale), round(-x * SIZE[1] * scale)


def assert_shows(seen, expected, at, where):
    """Whether ``seen`` shows ``expected``, an image that begins ``at`` there, in the part ``where`` of the stage."""
    rows, columns = where
    part = expected[rows.start - at[0] : rows.stop - at[0], columns.start - at[1] : columns.stop - at[1], :3]
    assert np.abs(seen[where] - part.astype(int)).max() <= 1


def nearest(pixels, scale):
    return pixels.repeat(scale, 0).repeat(scale, 1)


def x4(page, *layers):
    """Shows the middle of the image at four screen pixels for each of the file."""
    page.click("#times-four")
    settle(page, *layers)
    assert page.inner_text("#scale") == "x4"


def test_the_screen_shows_the_pixels_that_the_model_renders(pages, site, files, models):
    page = pages()
    open_image(page, site)
    x4(page, "model")
    expected = models[0].upscale(files.pixels[PHOTO], 4)
    assert_shows(screen(page), expected, origin(page, 4), (slice(60, 300), slice(300, 700)))
    assert page.title() == f"{PHOTO} - liif view"
    assert page.inner_text("#image-size") == "120 x 90 pixels"


def test_an_image_of_its_own_is_shown_at_once(pages, files, models):
    with serving(files, models[:1], [PHOTO], folder=None) as running:
        page = pages()
        page.goto(running.url)
        settle(page, "model")
        assert page.locator("#gallery").is_hidden() and page.locator("#back").is_hidden()
        assert screen(page)[100:250, 400:600].std() > 20


def test_the_state_of_the_encoding_and_the_render_time_are_shown(pages, files, models):
    with serving(files, models[:1], [PHOTO], folder=None) as running:
        page = pages()
        page.goto(running.url)
        page.wait_for_function("() => /^encoded in \\d+\\.\\d s$/.test(document.querySelector('#encoding').innerText)")
        page.wait_for_function("() => /^[\\d.]+ ms per tile$/.test(document.querySelector('#render-time').innerText)")
        assert page.inner_text("#announcement").startswith("encoded in")
        assert page.locator("#announcement").get_attribute("aria-live") == "polite"
        settle(page, "model")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1200)
        assert asked == []  # nothing more is asked once all is known


def test_zoom_by_buttons_and_keys(pages, site):
    page = pages()
    open_image(page, site)

    def scale():
        page.evaluate(TWO_FRAMES)
        return float(page.inner_text("#scale").removeprefix("x"))

    whole = scale()
    page.keyboard.press("+")
    assert scale() == pytest.approx(2 * whole, rel=0.02)
    page.click("#zoom-out")
    assert scale() == whole
    page.click("#zoom-in")
    page.keyboard.press("0")
    assert scale() == whole
    page.keyboard.press("1")
    assert scale() == 1 and page.inner_text("#scale") == "x1"
    page.click("#whole")
    assert scale() == whole
    x4(page)
    stage = page.locator("#stage").bounding_box()
    left, top = stage["x"] + 500, stage["y"] + 250
    page.mouse.move(left, top)
    y, x = origin(page, 4)
    position = [float(number) for number in page.inner_text("#position").split(", ")]
    assert position == pytest.approx([(500 - x) / 4, (250 - y) / 4], abs=0.051)
    page.keyboard.press("ArrowRight")
    assert scale() == 4 and origin(page, 4)[1] < x
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => Number(document.querySelector('#scale').innerText.slice(1)) > 4")


def test_comparison_shows_one_layer_on_each_side(pages, site, files, models):
    page = pages()
    open_image(page, site)
    page.keyboard.press("c")
    page.select_option("#left", "nearest")
    x4(page, "model", "nearest")
    assert page.locator("#compare").get_attribute("aria-pressed") == "true"
    assert page.inner_text("#left-name") == "Nearest" and page.inner_text("#right-name") == "small 1"
    pixels = files.pixels[PHOTO]
    layers = nearest(pixels, 4), models[0].upscale(pixels, 4)
    divider = page.locator("#divider")

    def assert_divided(at):
        settle(page, "model", "nearest")
        box, stage = divider.bounding_box(), page.locator("#stage").bounding_box()
        assert box["x"] + box["width"] / 2 - stage["x"] == pytest.approx(at, abs=1)
        seen, begin = screen(page), origin(page, 4)
        assert_shows(seen, layers[0], begin, (ROWS, slice(290, at - 4)))
        assert_shows(seen, layers[1], begin, (ROWS, slice(at + 4, 710)))

    assert_divided(500)
    divider.focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "61"
    assert "Nearest on the left" in divider.get_attribute("aria-valuetext")
    assert_divided(610)
    box = divider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(400, 300, steps=4)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") == "40"
    assert_divided(400)
    page.keyboard.press("Escape")
    settle(page, "model")
    assert divider.is_hidden()
    assert_shows(screen(page), layers[1], origin(page, 4), (ROWS, slice(290, 710)))


def test_a_layer_that_is_not_visible_loads_nothing(pages, site):
    page = pages()
    open_image(page, site)
    page.click("#compare")
    page.select_option("#left", "nearest")
    page.locator("#divider").focus()
    page.keyboard.press("End")  # all of the width is of the left layer
    settle(page, "nearest")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("+")
    settle(page, "nearest")
    assert any("/iiif/nearest/" in address for address in asked)
    assert not any("/iiif/model/" in address for address in asked)


def test_two_models_are_compared(pages, files, models):
    with serving(files, models, [OTHER]) as running:
        page = pages()
        open_image(page, running.url, OTHER)
        x4(page, "model")
        assert_shows(screen(page), models[0].upscale(files.pixels[OTHER], 4), origin(page, 4), (ROWS, slice(290, 710)))
        page.click("#compare")
        settle(page, "model", "model-2")
        seen, begin = screen(page), origin(page, 4)
        for model, columns in zip(models, (slice(290, 496), slice(504, 710))):
            assert_shows(seen, model.upscale(files.pixels[OTHER], 4), begin, (ROWS, columns))
        page.wait_for_function("() => document.querySelector('#encoding').innerText.match(/encoded in/g)?.length === 2")
        assert "small 2: encoded in" in page.inner_text("#encoding")


def test_transparent_parts_show_a_checkerboard_and_no_layer_below(pages, site, files, models):
    page = pages()
    open_image(page, site, CLEAR)
    page.select_option("#single", "nearest")
    x4(page, "nearest")
    page.wait_for_timeout(100)
    seen, (top, left) = screen(page), origin(page, 4)
    board = seen[ROWS, left + 40 : left + 232]
    assert {tuple(color) for color in board.reshape(-1, 3)} == {(0x6E,) * 3, (0x8C,) * 3}
    part = slice(left + 248, left + 352)
    color = nearest(files.pixels[CLEAR], 4)[ROWS.start - top : ROWS.stop - top, 248:352, :3].astype(int)
    blends = [np.abs(seen[ROWS, part] - (color * 128 + level * 127) / 255) for level in (0x6E, 0x8C)]
    assert np.minimum(*blends).max() <= 3  # over one of the two grays, once


def saving(page, **fields):
    page.keyboard.press("s")
    for field, value in fields.items():
        page.fill(f"#save-{field}", str(value))


def test_saving_a_region(pages, site, files, models, tmp_path):
    page = pages()
    open_image(page, site)
    x4(page, "model")
    page.keyboard.press("s")
    left, right = (float(page.input_value(f"#save-{edge}")) for edge in ("left", "right"))
    assert (left, right) == (0, 120) and page.input_value("#save-width") == "480"
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('dialog[open]')")
    saving(page, top=10, left=20.5, bottom=40, right=60.5)
    assert (page.input_value("#save-width"), page.input_value("#save-height")) == ("160", "120")
    page.fill("#save-width", "100")
    assert page.input_value("#save-height") == "75"
    with page.expect_download() as download:
        page.click("#save-start")
    assert download.value.suggested_filename.endswith(".png")
    download.value.save_as(tmp_path / "saved.png")
    saved = np.asarray(Image.open(tmp_path / "saved.png"))
    expected = models[0].upscale(files.pixels[PHOTO], width=100, height=75, region=(10, 20.5, 40, 60.5))
    assert saved.shape == (75, 100, 3) and np.abs(saved.astype(int) - expected).max() <= 1
    assert "is ready" in page.inner_text("#save-result")
    page.click("#save-cancel")
    assert not page.locator("#save-dialog").is_visible()


def test_a_save_that_is_refused_or_cancelled(pages, site, monkeypatch):
    page = pages(expected=["status of 400"])
    open_image(page, site)
    saving(page, left=50, right=40)
    page.click("#save-start")
    assert "empty" in page.inner_text("#save-error")
    page.fill("#save-right", "500")
    page.click("#save-start")
    assert "0 to 120" in page.inner_text("#save-error")
    page.fill("#save-right", "110.5")
    page.route("**/api/saves", lambda route: route.fulfill(status=400, json={"error": "no space is left"}))
    page.click("#save-start")
    page.wait_for_function("() => document.querySelector('#save-error').innerText === 'no space is left'")
    page.unroute("**/api/saves")
    asked, answers = [], {"DELETE": "cancelled", "GET": "rendering"}

    def answer(route):
        asked.append(route.request.method)
        state = answers["DELETE" if "DELETE" in asked else "GET"]
        route.fulfill(json={"id": "x", "state": state, "done": 0.25, "error": None, "notes": [], "name": "x.png"})

    page.route("**/api/saves", lambda route: route.fulfill(status=201, json={"id": "x"}))
    page.route("**/api/saves/x", answer)
    page.click("#save-start")
    page.wait_for_function("() => document.querySelector('#save-state').innerText === 'Rendering 25%'")
    assert page.inner_text("#save-cancel") == "Cancel"
    page.click("#save-cancel")
    page.wait_for_function("() => document.querySelector('#save-cancel').innerText === 'Close'")
    assert "DELETE" in asked and page.locator("#save-start").is_enabled()


def test_the_list_of_a_folder_and_back(pages, site):
    page = pages(expected=["status of"])
    page.goto(site)
    assert page.inner_text("#gallery-count") == "4 images"
    page.wait_for_function(
        "() => [...document.images].length === 3 && [...document.images].every((i) => i.naturalWidth)"
    )
    assert page.title() == "pictures - liif view"
    assert "not an image" in page.locator("li", has_text=BROKEN).locator(".problem").inner_text()
    page.click(f"text={OTHER}")
    settle(page, "model")
    assert page.inner_text("#image-name") == OTHER and page.url.endswith("#image=sub%2Fother.png")
    page.go_back()
    page.wait_for_selector("#gallery", state="visible")
    assert page.locator("#viewer").is_hidden()
    page.go_forward()
    settle(page, "model")
    page.click("#back")
    page.wait_for_selector("#gallery", state="visible")
    assert page.evaluate("() => document.activeElement.getAttribute('href')") == "#image=sub%2Fother.png"
    page.goto(f"{site}#image=none.png")
    page.wait_for_selector("text=There is no image named none.png here.")


def test_a_telephone_shows_everything_within_its_width(pages, site):
    page = pages(width=360, height=640, device_scale_factor=2, has_touch=True)
    page.goto(site)
    page.wait_for_selector("#gallery-list a")
    narrow = "() => document.documentElement.scrollWidth <= 360"
    assert page.evaluate(narrow)
    page.tap(f"text={PHOTO}")
    page.wait_for_function("() => document.querySelector('#scale').innerText === 'x6'")  # screen pixels, not CSS pixels
    page.tap("#compare")
    assert page.locator("#divider").is_visible()
    assert page.evaluate(narrow)
    controls = page.locator("#viewer button:visible, #viewer select:visible, #viewer a:visible").all()
    boxes = [control.bounding_box() for control in controls]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 360 for box in boxes)
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert page.locator("#stage").bounding_box()["height"] > 200
    page.tap("#save")
    box = page.locator("#save-dialog").bounding_box()
    assert page.evaluate(narrow) and box["x"] >= 0 and box["x"] + box["width"] <= 360


def overlap(a, b):
    return (
        a["x"] < b["x"] + b["width"]
        and b["x"] < a["x"] + a["width"]
        and a["y"] < b["y"] + b["height"]
        and b["y"] < a["y"] + a["height"]
    )


def test_all_controls_have_names(pages, site):
    page = pages()
    open_image(page, site)
    page.click("#compare")

    def controls(within):
        """Those of the accessibility tree, as lines such as ``button "Zoom in"``."""
        tree = page.locator(within).aria_snapshot()
        found = re.findall(r"- '?((?:button|link|combobox|slider|spinbutton|progressbar)\b[^\n]*)", tree)
        assert all(re.match(r'\w+ "[^"]+"', line) for line in found), found
        return found

    roles = [line.split()[0] for line in controls("body")]
    assert roles.count("button") >= 9 and roles.count("combobox") == 2 and "slider" in roles and "link" in roles
    page.keyboard.press("s")
    roles = [line.split()[0] for line in controls("#save-dialog")]
    assert roles.count("spinbutton") == 6 and roles.count("combobox") == 2
    page.click("#save-cancel")
    page.click("#help")
    assert any('button "Close"' in line for line in controls("#help-dialog"))
    assert page.locator("html").get_attribute("lang") == "en"


def test_tiles_that_are_no_longer_needed_are_ended(pages, files, models, monkeypatch):
    began, ended = [], []
    rendered = ViewedPicture.rendered

    def slowly(self, request, layer):
        began.append(request.canonical)
        finished = False
        try:
            for _ in range(20):
                time.sleep(0.01)
                yield
            result = yield from rendered(self, request, layer)
            finished = True
            return result
        finally:
            if not finished:
                ended.append(request.canonical)

    monkeypatch.setattr(ViewedPicture, "rendered", slowly)
    with serving(files, models[:1]) as running:
        page = pages()
        failed = []
        page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
        page.goto(f"{running.url}#image={quote(PHOTO)}")
        page.wait_for_function(
            "() => performance.getEntriesByType('resource').some((e) => e.name.includes('/bicubic/'))"
        )
        wait_until(lambda: began, page)
        for _ in range(3):
            page.keyboard.press("+")
            page.wait_for_timeout(100)
        wait_until(lambda: ended, page)
        settle(page, "model")
    assert failed and all("/iiif/" in address and "ABORTED" in why for address, why in failed)
    assert set(ended) <= set(began)


def wait_until(condition, page, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def test_a_tile_that_fails_is_reported_once(pages, site):
    page = pages(expected=["status of 400"])
    refusal = {"status": 400, "content_type": "text/plain", "body": "scale 5: the model renders up to 4"}
    page.route("**/iiif/model/**/default.png", lambda route: route.fulfill(**refusal))
    page.goto(f"{site}#image={quote(PHOTO)}")
    message = page.locator("#notices .notice")
    message.wait_for()
    page.wait_for_timeout(300)
    assert message.count() == 1
    assert "could not be rendered: scale 5: the model renders up to 4" in message.inner_text()
    message.get_by_role("button").click()
    assert message.count() == 0


def test_a_server_that_has_stopped_is_reported_once(pages, files, models):
    page = pages(expected=["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE"])
    with serving(files, models[:1]) as running:
        open_image(page, running.url)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("1")
    page.wait_for_selector("text=The server has stopped; start liif view again.")
    page.wait_for_timeout(300)
    assert page.locator(".notice").count() == 1
    asked.clear()
    page.keyboard.press("+")
    page.wait_for_timeout(700)
    assert asked == [] and page.locator(".notice").count() == 1


def test_the_page_works_below_the_path_of_a_proxy(pages, files, models):
    uvicorn = pytest.importorskip("uvicorn")
    from starlette.applications import Starlette
    from starlette.routing import Mount

    named = [NamedModel("small", models[0])]
    entries = {name: entry_or_problem(name, files.folder / name, named, MEMORY) for name in files.names}
    server = Server(Gallery.within(MEMORY, entries, 16.0), "pictures")
    application = Starlette(routes=[Mount("/user/proxy/8765", app=server.application)])
    running = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    try:
        port = running.servers[0].sockets[0].getsockname()[1]
        page = pages()
        page.goto(f"http://127.0.0.1:{port}/user/proxy/8765/")
        page.click(f"text={OTHER}")
        settle(page, "model")
        x4(page, "model")
        expected = models[0].upscale(files.pixels[OTHER], 4)
        assert_shows(screen(page), expected, origin(page, 4), (ROWS, slice(300, 700)))
    finally:
        running.should_exit = True
        server.close()
        thread.join(5)
