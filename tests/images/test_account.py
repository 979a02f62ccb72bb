"""What becomes of a file's metadata when it is enlarged: kept, changed or dropped, and said."""

import io
import json
import re
import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from attrs import evolve
from image_files import DEEP, GRAY, RGB, SRGB, H, W, palette_image, png, saved
from PIL import Image, PngImagePlugin

from liif_core.images import (
    Change,
    Metadata,
    Target,
    check_output,
    header,
    open_writer,
    picture_from_pillow,
    picture_to_pillow,
    read_image,
    survey,
)

FORMATS = ("png", "jpg", "webp", "tif")
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
SIZE = (2 * H, 2 * W)


def enlarged(source: Path, suffix: str, whole: bool = True, in_parts: bool = False) -> tuple[Target, Path]:
    """A file of twice the size with the metadata of ``source``, each pixel four times."""
    picture = read_image(source)
    found = survey(source, 1).open().metadata if in_parts else picture.metadata
    found = evolve(found, whole=picture.size if whole else None)
    pixels = picture.color.repeat(2, 0).repeat(2, 1)
    path = source.with_name(f"out.{suffix}")
    target = check_output(path, pixels.shape[:2], pixels.shape[2], picture.depth, found)
    rows = pixels if target.depth == picture.depth else (pixels / 257).round().astype(target.depth)
    with open_writer(target) as writer:
        writer.write_rows(rows)
    return target, path


def whats(changes: tuple[Change, ...]) -> str:
    return "; ".join(map(str, changes))


def packet(attributes: str = "", elements: str = "", prefix: str = "tiff") -> bytes:
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        f'xmlns:rdf="{RDF}"><rdf:Description rdf:about="" xmlns:{prefix}="http://ns.adobe.com/tiff/1.0/" '
        'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        f"{attributes}><dc:title><rdf:Alt><rdf:li>Näher</rdf:li></rdf:Alt></dc:title>{elements}</rdf:Description>"
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "in"


# IPTC

RECORDS = b"\x1c\x01\x5a\0\3\x1b%G" + b"\x1c\x02\x78\0\6n\xc3\xa4her" + b"\x1c\x02\x05\0\2ab"
RESOURCE = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(RECORDS)) + RECORDS + b"\0" * (len(RECORDS) % 2)


def iptc_of(path: Path) -> bytes | None:
    """IPTC as it stands in a file."""
    data = path.read_bytes()
    if data[:2] == b"\xff\xd8":
        at = data.index(b"Photoshop 3.0\0") + 14
        assert data[at : at + 8] == b"8BIM\x04\x04\0\0"
        return data[at + 12 : at + 12 + struct.unpack_from(">I", data, at + 8)[0]]
    with Image.open(path) as image:
        image.load()
        if image.format == "TIFF":
            return image.tag_v2[33723]
        lines = image.text["Raw profile type iptc"].split("\n")
        assert lines[:2] == ["", "iptc"] and int(lines[2]) == len(bytes.fromhex("".join(lines[3:])))
        return bytes.fromhex("".join(lines[3:]))[12:][: len(RECORDS)]


def with_iptc(where: str) -> bytes:
    if where == "jpg":
        segment = b"Photoshop 3.0\0" + b"8BIM\x04\x0c\0\0\0\0\0\2ab" + RESOURCE  # a thumbnail before it
        return saved(Image.fromarray(RGB), "JPEG", extra=b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment)
    if where == "png":
        lines = RESOURCE.hex().encode()
        return png(8, 2, RGB.reshape(H, -1), (b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(
            b"\n8bim\n%8d\n" % len(RESOURCE) + lines + b"\n")))  # fmt: skip
    words = RECORDS + b"\0" * (-len(RECORDS) % 4)
    tags = {
        "tif bytes": [(33723, 7, len(RECORDS), RECORDS, True)],
        "tif words": [(33723, 4, len(words) // 4, struct.unpack(f"<{len(words) // 4}I", words), True)],
        "tif words of the other order": [
            (33723, 4, len(words) // 4, struct.unpack(f">{len(words) // 4}I", words), True)
        ],
        "tif resources": [(34377, 1, len(RESOURCE), RESOURCE, True)],
    }
    stream = io.BytesIO()
    tifffile.imwrite(stream, RGB, photometric="rgb", metadata=None, extratags=tags[where])
    return stream.getvalue()


@pytest.mark.parametrize(
    "where", ["jpg", "png", "tif bytes", "tif words", "tif words of the other order", "tif resources"]
)
def test_iptc_is_kept_wherever_a_format_has_a_place_for_it(where, file):
    file.write_bytes(with_iptc(where))
    for suffix in FORMATS:
        target, path = enlarged(file, suffix)
        if suffix == "webp":
            assert "IPTC: WebP cannot hold it" in whats(target.account.dropped)
        else:
            assert iptc_of(path) == RECORDS and "IPTC" in target.account.kept
            assert read_image(path).metadata.iptc == RECORDS
    assert ("0x040C" in whats(read_image(file).metadata.dropped)) == (where == "jpg")


# Colors

CHUNKS = {
    b"cICP": bytes([9, 16, 0, 1]),
    b"gAMA": struct.pack(">I", 100000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600),
    b"sRGB": b"\1",
}


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("deep", [False, True])
def test_color_chunks_stay_in_a_png_before_its_pixels(kind, deep, file):
    rows = DEEP[..., :3].astype(">u2") if deep else RGB
    file.write_bytes(png(16 if deep else 8, 2, rows.reshape(H, -1), (kind, CHUNKS[kind])))
    chunk = struct.pack(">I", len(CHUNKS[kind])) + kind + CHUNKS[kind]
    for in_parts in (False, True):
        target, path = enlarged(file, "png", in_parts=in_parts)
        data = path.read_bytes()
        assert 0 < data.find(chunk) < data.index(b"IDAT") and f"chunk {kind.decode()}" in target.account.kept
    target, _ = enlarged(file, "jpg")
    said = target.account.changed if kind == b"sRGB" else target.account.dropped  # which a JPEG means anyway
    assert f"chunk {kind.decode()}: " in whats(said)


def test_color_chunks_by_way_of_pillow(file):
    file.write_bytes(png(8, 2, RGB.reshape(H, -1), *CHUNKS.items()))
    with Image.open(file) as image:
        picture = picture_from_pillow(image)
    picture_to_pillow(picture).save(file.with_name("out.png"))
    data = file.with_name("out.png").read_bytes()
    for kind, content in CHUNKS.items():
        assert 0 < data.find(kind + content) < data.index(b"IDAT"), kind


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_a_palette_of_grays_with_a_profile_for_rgb_stays_rgb(format, in_parts, file):
    image = palette_image()
    image.putpalette([7, 7, 7, 50, 50, 50, 99, 99, 99, 255, 255, 255])
    image.save(file, format, icc_profile=SRGB)
    source = survey(file, 1).open() if in_parts else read_image(file)
    assert source.metadata.icc == SRGB
    assert (source.channels if in_parts else source.color.shape[2]) == 3


def test_adobe_rgb_that_only_exif_states_is_kept(file):
    block = Image.Exif()
    block[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03", 2: b"0100", 0x1001: 99}}
    Image.fromarray(RGB).save(file, "JPEG", exif=block)
    for suffix in FORMATS:
        _, path = enlarged(file, suffix)
        with Image.open(path) as image:
            tags = image.getexif()
            assert tags.get_ifd(0x8769)[0xA001] == 0xFFFF
            assert tags.get_ifd(0xA005) == {1: "R03", 2: b"0100"}, suffix  # without the width of another image


def test_a_profile_for_gray_does_not_go_into_a_webp(file):
    gray = bytearray(SRGB)
    gray[16:20] = b"GRAY"
    file.write_bytes(saved(Image.fromarray(GRAY), "PNG", icc_profile=bytes(gray)))
    assert "ICC profile" in enlarged(file, "png")[0].account.kept
    target, path = enlarged(file, "webp")  # which is RGB
    assert "ICC profile" in whats(target.account.dropped) and "icc_profile" not in Image.open(path).info


# EXIF and orientation


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0", b"\0\0Exif\0\0"])
@pytest.mark.parametrize("cut", [0, 4, 6, 16])
def test_exif_that_is_cut_off_or_oddly_prefixed_is_read_as_far_as_it_goes(prefix, cut, file):
    table = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHII", 0x010E, 2, 9, 38)
    block = b"MM\0*" + struct.pack(">IH", 8, 2) + table + bytes(4) + b"Quarters\0"
    block = block[: len(block) - 9 - cut] if cut else block
    file.write_bytes(png(8, 2, RGB.reshape(H, -1), (b"eXIf", prefix + block)))
    picture = read_image(file)
    np.testing.assert_array_equal(picture.color, np.rot90(RGB, -1))
    assert (b"Quarters" in (picture.metadata.exif or b"")) == (cut == 0)
    assert "orientation 6: applied" in whats(picture.metadata.changed)
    said = whats(picture.metadata.dropped)
    assert ("EXIF tag 0x010E: it lies beyond" in said or "the block is cut off" in said) == (cut > 0)


def test_maker_notes_thumbnails_and_positions_are_dropped_and_said(file):
    block = Image.Exif()
    block[0x010F] = "Maker"
    block[0x8769] = {0x829A: 0.01, 0x927C: b"private", 0xA20E: 100.0, 0x9214: (1, 2, 3, 4)}
    data = bytearray(block.tobytes()[6:])
    order = "<" if data[:2] == b"II" else ">"
    end = 10 + 12 * struct.unpack_from(order + "H", data, 8)[0]
    second = struct.pack(order + "HHHIII", 1, 0x0201, 4, 1, 0, 0)  # a directory that points to a JPEG
    struct.pack_into(order + "I", data, end, len(data))
    Image.fromarray(RGB).save(file, "JPEG", exif=b"Exif\0\0" + bytes(data) + second)
    target, path = enlarged(file, "jpg")
    said = whats(target.account.dropped)
    assert "maker notes: " in said and "thumbnail: " in said and "description of the pixels: " in said
    with Image.open(path) as image:
        assert image.getexif().get_ifd(0x8769) == {0x829A: 0.01} and image.getexif()[0x010F] == "Maker"


def profile(name: str, data: bytes) -> bytes:
    lines = "\n".join(data.hex()[start : start + 72] for start in range(0, 2 * len(data), 72))
    return f"\n{name}\n{len(data):8}\n{lines}\n".encode()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("keyword", ["Raw profile type APP1", "Raw profile type xmp", "XML:com.adobe.xmp"])
def test_orientation_in_xmp_in_the_text_of_a_png(keyword, after, file):
    xmp = packet('t:Orientation = "8"', prefix="t")
    if keyword.startswith("XML"):
        chunk = b"iTXt", keyword.encode() + b"\0\0\0\0\0" + xmp
    else:
        data = b"http://ns.adobe.com/xap/1.0/\0" + xmp if keyword.endswith("APP1") else xmp
        chunk = b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(profile("generic profile", data))
    whole, plain = png(8, 2, RGB.reshape(H, -1), chunk), png(8, 2, RGB.reshape(H, -1))
    if after:
        whole = plain[:-12] + whole[33 : 33 + 12 + len(chunk[1])] + plain[-12:]
    file.write_bytes(whole)
    picture = read_image(file)
    np.testing.assert_array_equal(picture.color, np.rot90(RGB))
    assert picture.metadata.xmp == xmp.replace(b'"8"', b'"1"').strip() and picture.metadata.text == {}


def test_profiles_for_colors_in_the_text_of_a_png(file):
    chunk = b"Raw profile type icc\0\0" + zlib.compress(profile("icc", SRGB))
    file.write_bytes(png(8, 2, RGB.reshape(H, -1), (b"zTXt", chunk)))
    assert read_image(file).metadata.icc == SRGB


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_orientation_that_only_the_xmp_of_a_tiff_states(dtype, file):
    xmp = packet("", "<tiff:Orientation> 6 </tiff:Orientation>")
    pixels = RGB.astype(dtype)
    tags = [(700, 1, len(xmp), xmp, True)]
    tifffile.imwrite(file, pixels, photometric="rgb", metadata=None, extratags=tags)
    picture = read_image(file)
    np.testing.assert_array_equal(picture.color, np.rot90(pixels, -1))
    assert b">1<" in picture.metadata.xmp
    assert header(file).size == picture.size


# XMP


@pytest.mark.parametrize("suffix", FORMATS)
def test_sizes_in_xmp_are_those_of_the_output(suffix, file):
    xmp = packet(
        f'tiff:ImageWidth="{W}" exif:PixelYDimension="{H}" dc:format="image/webp" tiff:BitsPerSample="12"',
        f"<tiff:ImageLength>{H}</tiff:ImageLength><GPano:CroppedAreaLeftPixels>4</GPano:CroppedAreaLeftPixels>"
        "<GPano:FullPanoHeightPixels>50</GPano:FullPanoHeightPixels>",
    )
    Image.fromarray(RGB).save(file, "WEBP", lossless=True, xmp=xmp)
    _, path = enlarged(file, suffix)
    kept = read_image(path).metadata.xmp.decode()
    media = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    for part in (f'tiff:ImageWidth="{2 * W}"', f'exif:PixelYDimension="{2 * H}"', f'"image/{media}"', "Näher"):
        assert part in kept
    assert f">{2 * H}<" in kept and ">8<" in kept and ">100<" in kept and "BitsPerSample" not in kept
    target, path = enlarged(file, suffix, whole=False)
    assert "GPano:" not in read_image(path).metadata.xmp.decode().replace("xmlns:GPano", "")
    assert "XMP's positions" in whats(target.account.changed)


HDR = "http://ns.adobe.com/hdr-gain-map/1.0/"
FURTHER = {
    "attribute": (f'xmlns:h="{HDR}" h:Version="1.0"', ""),
    "element": (f'xmlns:h="{HDR}"', "<h:GainMapMin><rdf:Seq><rdf:li>2</rdf:li></rdf:Seq></h:GainMapMin><h:Version/>"),
    "apple": ('xmlns:a="http://ns.apple.com/HDRGainMap/1.0/" a:HDRGainMapVersion="65536"', ""),
    "items": (
        'xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:I="http://ns.google.com/photos/1.0/container/item/"',
        '<C:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><C:Item I:Semantic="GainMap" I:Length="9"/></rdf:li>'
        "</rdf:Seq></C:Directory>",
    ),
    "motion": ('xmlns:G="http://ns.google.com/photos/1.0/camera/" G:MotionPhoto="1" G:MicroVideoOffset="9"', ""),
    "extended": ('xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="0123"', ""),
}


@pytest.mark.parametrize("case", FURTHER)
def test_what_names_further_images_is_removed_from_xmp(case, file):
    file.write_bytes(saved(Image.fromarray(RGB), "JPEG", xmp=packet(*FURTHER[case])))
    target, path = enlarged(file, "jpg")
    kept = read_image(path).metadata.xmp.decode()
    assert not re.search(r"Version|GainMap|Item|Length|Motion|MicroVideo|Extended|Directory", kept), kept
    assert "Näher" in kept and target.account.dropped
    ElementTree.fromstring(kept.replace("\ufeff", ""))  # raises where it is not well-formed


def test_xmp_that_is_malformed_is_copied_only_if_it_names_no_further_image(file):
    for xmp, kept in ((b'<x tiff:Orientation="6">', b'<x tiff:Orientation="1">'), (b'<x hdrgm:Version="1.0">', None)):
        file.write_bytes(saved(Image.fromarray(RGB), "JPEG", xmp=xmp))
        assert read_image(file).metadata.xmp == kept


# Descriptions


def ome(**more: str) -> str:
    given = {
        "SizeX": W,
        "SizeY": H,
        "SizeZ": 1,
        "SizeC": 1,
        "SizeT": 1,
        "Type": "uint16",
        "PhysicalSizeX": "0.5",
    } | more
    pixels = " ".join(f'{name}="{value}"' for name, value in given.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" {pixels}><Channel ID="Channel:0:0" Name="µ" '
        'SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    )


def described(file: Path, description: str, **options) -> None:
    with tifffile.TiffWriter(file) as writer:
        writer.write(DEEP[..., 0], photometric="minisblack", metadata=None, description=description.encode(), **options)


def test_the_sizes_of_an_ome_tiff_are_corrected(file):
    described(file, ome())
    target, path = enlarged(file, "tif")
    with tifffile.TiffFile(path) as again:
        assert again.is_ome and again.series[0].shape == SIZE
        assert f'SizeX="{2 * W}" SizeY="{2 * H}"' in again.ome_metadata and 'PhysicalSizeX="0.25"' in again.ome_metadata
        assert "µ" in again.ome_metadata
    assert "OME-XML, its sizes" in whats(target.account.changed)


@pytest.mark.parametrize("more", [{"SizeZ": 2}, {"SizeX": 99}, {"SizeC": 2}])
def test_ome_of_what_the_output_is_not_is_dropped_and_said(more, file):
    described(file, ome(**more))
    target, path = enlarged(file, "tif")
    assert b"OME" not in path.read_bytes() and "description: OME-XML" in whats(target.account.dropped)


def test_ome_of_a_part_or_of_a_turned_picture_is_dropped(file):
    described(file, ome())
    assert b"OME" not in enlarged(file, "tif", whole=False)[1].read_bytes()
    described(file, ome(), extratags=[(0x0112, 3, 1, 6, True)])
    assert b"OME" not in enlarged(file, "tif")[1].read_bytes()


def test_the_shape_that_tifffile_writes_is_dropped(file):
    tifffile.imwrite(file, DEEP[..., 0])
    assert b'"shape"' in file.read_bytes()
    target, path = enlarged(file, "tif")
    assert b'"shape"' not in path.read_bytes() and "tifffile's" in whats(target.account.dropped)
    described(file, "a view, 17 x 13")
    assert b"a view, 17 x 13" in enlarged(file, "tif")[1].read_bytes()


# Text, resolution, and the account


def test_text_of_a_png_in_every_format(file):
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "Four <quarters>")
    text.add_itxt("Description", "näher")
    text.add_text("parameters", "steps 20")
    Image.fromarray(RGB).save(file, "PNG", pnginfo=text)
    target, path = enlarged(file, "png")
    assert read_image(path).metadata.text == {
        "Title": "Four <quarters>",
        "Description": "näher",
        "parameters": "steps 20",
    }
    assert "text Title" in target.account.kept
    target, path = enlarged(file, "jpg")
    assert (
        Image.open(path).info["comment"].decode() == "Title: Four <quarters>\nDescription: näher\nparameters: steps 20"
    )
    for suffix in ("webp", "tif"):
        target, path = enlarged(file, suffix)
        assert b"Four &lt;quarters&gt;" in path.read_bytes() and "näher".encode() in path.read_bytes()
        assert "text parameters" in whats(target.account.dropped) and "text Title" in whats(target.account.changed)


def test_all_comments_of_a_jpeg_are_kept(file):
    plain = saved(Image.fromarray(RGB), "JPEG")
    comments = b"".join(b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text for text in (b"one", b"n\xe4her"))
    file.write_bytes(plain[:2] + comments + plain[2:])
    assert read_image(file).metadata.text == {"Comment": "one\nnäher"}


def test_the_resolution_that_only_exif_states_is_kept(file):
    block = Image.Exif()
    block[0x011A], block[0x011B], block[0x0128] = 300.0, 150.0, 2
    Image.fromarray(RGB).save(file, "WEBP", exif=block)
    for suffix in FORMATS:
        target, path = enlarged(file, suffix)
        assert read_image(path).metadata.dpi == pytest.approx((300, 150), abs=0.02)
        assert "resolution 300 x 150 dpi" in target.account.kept


def test_chunks_and_segments_that_are_not_copied_are_said(file):
    file.write_bytes(
        png(8, 2, RGB.reshape(H, -1), (b"caBX", b"x"), (b"vpAg", bytes(9)), (b"pHYs", struct.pack(">IIB", 1, 2, 0)))
    )
    said = whats(read_image(file).metadata.dropped)
    assert "content credentials" in said and "chunk vpAg" in said and "pixel aspect ratio 1:2" in said
    extra = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data
        for marker, data in ((0xEB, b"JP\0\1"), (0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), (0xE5, b"odd"))
    )
    file.write_bytes(saved(Image.fromarray(RGB), "JPEG", extra=extra))
    said = whats(read_image(file).metadata.dropped)
    assert "content credentials" in said and "gain map" in said and "segment APP5" in said


def test_the_account_in_one_line_and_in_json(file):
    block = Image.Exif()
    block[0x0112], block[0x010E] = 6, "a view"
    Image.fromarray(GRAY).save(file, "JPEG", exif=block, icc_profile=SRGB, dpi=(300, 300))
    target, _ = enlarged(file, "png")
    account = target.account
    assert account.line() == ("kept EXIF, resolution 300 x 300 dpi; changed orientation 6; dropped ICC profile")
    assert account.lines()[-1] == "dropped ICC profile: it is for other colors than the picture has"
    assert account.after("a.png: done", verbose=False) == [f"a.png: done; {account.line()}"]
    assert account.after("a.png: done", verbose=True) == ["a.png: done", *(f"  {line}" for line in account.lines())]
    again = json.loads(json.dumps(account.as_json()))
    assert again["changed"] == [{"what": "orientation 6", "why": "applied, the picture is upright"}]
    assert check_output(file.with_name("b.png"), SIZE, 3, "uint8", Metadata()).account.after("done", verbose=False) == [
        "done"
    ]
