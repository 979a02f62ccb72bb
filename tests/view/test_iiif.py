"""What an IIIF request asks for, by the text of the Image API 3.0, sections 4 and 5."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liif_core.view.iiif import BadRequest, description, parse

FULL = 600, 900  # height, width


def asked(region="full", size="max", rotation="0", last="default.png", full=FULL, **options):
    return parse(region, size, rotation, last, full, **options)


REGIONS = {
    "full": (0, 0, 900, 600),
    "square": (150, 0, 600, 600),
    "0,0,900,600": (0, 0, 900, 600),
    "10,20,30,40": (10, 20, 30, 40),
    "800,500,200,200": (800, 500, 100, 100),  # cropped at the edges
    "pct:0,0,100,100": (0, 0, 900, 600),
    "pct:41.6,7.5,40,70": (374, 45, 360, 420),  # the first example of the standard: 374.4, 45
    "pct:50,50,100,100": (450, 300, 450, 300),
}


@pytest.mark.parametrize("text", REGIONS)
def test_regions(text):
    assert asked(text).region == REGIONS[text]


BAD_REGIONS = [
    "", "all", "1,2,3", "1,2,3,4,5", "0,0,0,10", "0,0,10,0", "900,0,10,10", "0,600,1,1", "-1,0,10,10", "1.5,0,10,10",
    "a,b,c,d", "pct:", "pct:0,0,0,10", "pct:100,0,10,10", "pct:-1,0,10,10", "pct:1,2,3", "PCT:0,0,1,1", "1e2,0,5,5",
    "0,0,nan,5", "0,0,inf,5", " 0,0,5,5", "\u0661,0,5,5", "9" * 400 + ",0,1,1",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_REGIONS)
def test_bad_regions(text):
    with pytest.raises(BadRequest, match="^region ") as caught:
        asked(text)
    assert caught.value.status == 400 and len(str(caught.value)) < 300


SIZES = {  # of the region 0,0,600,300 -> (height, width)
    "max": (300, 600),
    "150,": (75, 150),
    ",150": (150, 300),
    "600,300": (300, 600),
    "225,100": (100, 225),
    "pct:50": (150, 300),
    "pct:33.3": (100, 200),
    "pct:0.01": (1, 1),
    "!225,100": (100, 200),
    "!50,100": (25, 50),
    "!600,300": (300, 600),
    "^max": (1448, 2896),  # 4,194,304 pixels at most
    "^1200,": (600, 1200),
    "^,900": (900, 1800),
    "^360,": (180, 360),
    "^1500,1000": (1000, 1500),
    "^pct:200": (600, 1200),
    "^!2000,900": (900, 1800),
}


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text):
    found = asked("0,0,600,300", text)
    assert found.size == SIZES[text]
    assert found.upscaled == (SIZES[text][0] > 300 or SIZES[text][1] > 600)


BAD_SIZES = [
    "", "full", "601,", ",301", "600,301", "pct:101", "!1200,900", "0,", ",0", "0,0", ",", "pct:0", "pct:-5", "pct:",
    "!0,5", "!5", "!5,", "^", "^^5,", "5", "5,5,5", "1.5,", "^pct:100000", "^9999,9999", "^" + "9" * 400 + ",", "-5,",
    "max^", "!max", "\u0665,",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_SIZES)
def test_bad_sizes(text):
    with pytest.raises(BadRequest, match="^size ") as caught:
        asked("0,0,600,300", text)
    assert caught.value.status == 400 and len(str(caught.value)) < 300


def test_the_largest_answer_is_limited():
    assert asked(size="max", max_area=60_000).size == (200, 300)
    assert asked(size="^max", max_area=2_160_000).size == (1200, 1800)
    with pytest.raises(BadRequest, match=r"at most 100 pixels \(maxArea\), and this has 90 x 60"):
        asked(size="90,60", max_area=100)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1 << 22))
def test_what_fits_a_box_fits_it(height, width, across, down, max_area):
    """``^!w,h`` is within the box and the limit, has the region's shape, and could not be a pixel larger."""
    found = asked("full", f"^!{across},{down}", full=(height, width), max_area=max_area).size
    assert 1 <= found[0] <= down and 1 <= found[1] <= across and found[0] * found[1] <= max_area
    scale = min(across / width, down / height, (max_area / (height * width)) ** 0.5)
    if min(height, width) * scale >= 1:
        assert abs(found[0] - height * scale) <= 1 and abs(found[1] - width * scale) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (False, 0)), ("90", (False, 90)), ("180.0", (False, 180)), ("!270", (True, 270)), ("!0", (True, 0)),
        ("360", (False, 0)),
    ],
)  # fmt: skip
def test_rotations(text, expected):
    found = asked(rotation=text)
    assert (found.mirrored, found.rotation) == expected


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("45", 501), ("22.5", 501), ("!1", 501), ("361", 400), ("-90", 400), ("", 400), ("!", 400), ("!!90", 400),
        ("x", 400), ("1e1", 400), ("nan", 400),
    ],
)  # fmt: skip
def test_bad_rotations(text, status):
    with pytest.raises(BadRequest, match="^rotation ") as caught:
        asked(rotation=text)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "text", ["default", "default.", ".png", "default.gif", "colour.png", "gray.tif", "", "native.jpg"]
)
def test_bad_qualities_and_formats(text):
    with pytest.raises(BadRequest, match="^(quality|format) "):
        asked(last=text)


@pytest.mark.parametrize(
    ("request_", "canonical"),
    [
        (("0,0,900,600", "900,", "0", "color.png"), "full/max/0/default.png"),
        (("square", "pct:50", "!90.0", "gray.jpg"), "150,0,600,600/300,300/!90/gray.jpg"),
        (("800,500,900,900", "^,400", "0", "bitonal.webp"), "800,500,100,100/^400,400/0/bitonal.webp"),
    ],
)
def test_the_canonical_form(request_, canonical):
    found = parse(*request_, FULL)
    assert found.canonical == canonical
    region, size, rotation, last = canonical.split("/")
    assert parse(region, size, rotation, last, FULL).canonical == canonical


def test_the_description():
    found = description("http://here/iiif/model/a.png", (4000, 9000), "png")
    assert (found["id"], found["width"], found["height"]) == ("http://here/iiif/model/a.png", 9000, 4000)
    assert (found["type"], found["profile"], found["protocol"]) == (
        "ImageService3", "level2", "http://iiif.io/api/image"
    )  # fmt: skip
    [tiles] = found["tiles"]
    assert tiles["scaleFactors"] == [1, 2, 4, 8, 16, 32, 64] and 9000 <= 256 * 64
    assert found["maxArea"] >= max(size["width"] * size["height"] for size in found["sizes"])
    for size in found["sizes"]:  # each can be asked for
        parse("full", f"{size['width']},{size['height']}", "0", "default.jpg", (4000, 9000))
