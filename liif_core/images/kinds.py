"""Which kind of image a file is, by its first bytes; what reads it, and the names of kinds that are not read.

Sources of the signatures: the formats' specifications; of camera raw files, the makers' files as ExifTool describes
them (https://exiftool.org/TagNames/).
"""

import importlib
import re
from pathlib import Path

from PIL import Image, features

from liif_core.errors import UserError
from liif_core.images import ifd
from liif_core.images.formats import RAW_SUFFIXES, READ_SUFFIXES

FORMATS = tuple(READ_SUFFIXES)
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RAW = "camera raw"
# (name, first bytes); of formats that are read, Pillow's names.
_SIGNATURES = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("AVIF", rb"....ftyp(?:avi[fs]|(?:mif1|msf1|miaf)....(?:....){0,8}?avi[fs])"),
        ("HEIF", rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|miaf)"),
        ("JXL", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
        ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("DDS", rb"DDS "),
        ("ICO", rb"\0\0\x01\0"),
        (_RAW, rb"II\*\0.{4}CR\x02|IIU\0|IIR[OS]|MMOR|FUJIFILMCCD-RAW|FOVb|\0MRM|II..\0\0HEAPCCDR|....ftypcrx |ARRI"),
        ("Photoshop", rb"8BPS"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?(?:RADIANCE|RGBE)"),
        ("GIMP", rb"gimp xcf"),
        ("JPEG XR", rb"II\xbc\x01"),
        ("BPG", rb"BPG\xfb"),
        ("FLIF", rb"FLIF"),
        ("PDF", rb"%PDF"),
        ("PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("QuickTime or MP4 video", rb"....ftyp"),
        ("SVG", rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,400}?-->\s*)?(?:<!DOCTYPE svg.{0,200}?>\s*)?<svg"),
    )
)
# Of formats that Pillow reads through another package: the package, and what to import.
_PLUGINS = {"HEIF": ("pillow-heif", "pillow_heif"), "JXL": ("pillow-jxl-plugin", "pillow_jxl")}
_NAMES = {"JXL": "JPEG XL", "HEIF": "HEIC"}  # as users know them
_LAYOUTS = ("AVIF", "HEIF", "JXL", "JPEG2000", "DDS", "ICO", "TGA")  # not opened unless their bytes or suffix say so
_PLAIN = tuple(name for name in FORMATS if name not in _LAYOUTS)
_DNG_VERSION, _SUBDIRECTORIES, _PHOTOMETRIC = 50706, 330, 262
_SENSOR = (32803, 34892)  # color filter array, linear raw
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_FRAMES = {0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xCB: "lossless",
           0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical", 0xF7: "lossless (JPEG-LS)"}  # fmt: skip
_HEAD = 1 << 16  # bytes in which a file says how many bits its samples have


def pillow_formats(path: Path) -> tuple[str, ...]:
    """The formats as one of which Pillow may open a file; the package that reads it is imported.

    Raises UserError, naming the package, where it is not installed, and for a kind that Pillow would read, but not as
    it is.
    """
    name = signature(path)
    if not name and path.suffix.lower() in READ_SUFFIXES["TGA"]:
        return (*_PLAIN, "TGA")
    if not name and path.suffix.lower() == ".dib":
        return (*_PLAIN, "DIB")  # a BMP without the header of a file
    if name not in _LAYOUTS:
        return _PLAIN
    _import_reader(path, name)
    _check_layout(path, name)
    return (name,)


def signature(path: Path) -> str:
    """The name of the kind of file, if it is one of ``_SIGNATURES``; else empty."""
    with path.open("rb") as file:
        start = file.read(1024)
    return next((name for name, pattern in _SIGNATURES if pattern.match(start)), "")


def _import_reader(path: Path, name: str) -> None:
    if name == "AVIF":
        if not features.check("avif"):
            raise UserError(
                f"{path}: AVIF files need Pillow 11.3 or newer with its AVIF decoder; install it with: "
                "pip install --upgrade pillow, or convert the file to PNG first"
            )
    elif name in _PLUGINS:
        package, module = _PLUGINS[name]
        try:
            plugin = importlib.import_module(module)
        except Exception as problem:  # of a broken package anything
            found = "" if isinstance(problem, ModuleNotFoundError) else f", which cannot be imported ({problem})"
            raise UserError(
                f"{path}: {_NAMES[name]} files need the package {package}{found}; install it with: "
                "pip install 'liif-core[formats]', or convert the file to PNG first"
            ) from None
        if name == "HEIF":
            plugin.register_heif_opener()


def check_not_raw(path: Path, pages: list[ifd.Directory] | None) -> None:
    """Raises UserError for a camera raw file. ``pages`` are the directories of a TIFF."""
    raw = signature(path) == _RAW
    if pages is not None:
        raw |= path.suffix.lower() in RAW_SUFFIXES or any(map(_is_sensor, pages)) or _has_sensor_below(path, pages)
    if raw:
        raise UserError(
            f"{path}: a camera raw file is not read: it holds what the sensor saw, and a small preview; develop it "
            "with a raw converter, export it as 16-bit TIFF or PNG, and enlarge that"
        )


def _is_sensor(page: ifd.Directory) -> bool:
    return _DNG_VERSION in page or ifd.numbers(page, _PHOTOMETRIC, [0])[0] in _SENSOR


def _has_sensor_below(path: Path, pages: list[ifd.Directory]) -> bool:
    offsets = [offset for page in pages for offset in ifd.numbers(page, _SUBDIRECTORIES)]
    with path.open("rb") as file:
        return any(_is_sensor(page) for page in ifd.read_at(file, offsets))


def unread(path: Path) -> str:
    """What a whole file is that cannot be read, as "JPEG files of 12 bits per sample"; empty if that is not known."""
    name = signature(path)
    if name and name not in FORMATS:
        return f"{name} files"
    with path.open("rb") as file:
        start = file.read(3)
    if start == b"\xff\xd8\xff":
        return _unread_jpeg(path)
    return ""


def _unread_jpeg(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(2)
        while (start := file.read(4))[:1] == b"\xff" and len(start) == 4:
            if start[1] == 0xFF:
                file.seek(-3, 1)
            elif start[1] in _START_OF_FRAME:
                bits = (file.read(1) or b"\x08")[0]
                if start[1] in _FRAMES:
                    return f"{_FRAMES[start[1]]} JPEG files"
                return f"JPEG files of {bits} bits per sample" if bits in (12, 16) else ""
            else:
                file.seek(int.from_bytes(start[2:], "big") - 2, 1)
    return ""


def _check_layout(path: Path, name: str) -> None:
    """Raises UserError for files that Pillow opens, but does not decode as they are."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    what = ""
    if name == "JPEG2000" and (place := head.find(b"\xff\x4f\xff\x51")) >= 0:
        samples = head[place + 42 : place + 42 + 3 * int.from_bytes(head[place + 40 : place + 42], "big") : 3]
        bits = sorted({(bits & 0x7F) + 1 for bits in samples})
        if bits not in ([8], []):
            what = f"a JPEG 2000 of {' and '.join(map(str, bits))} bits per sample"
    if name == "DDS" and len(head) >= 132:
        kinds = int.from_bytes(head[112:116], "little")
        what = "a DDS of a cube map" if kinds & 0x200 else "a DDS of a volume" if kinds & 0x200000 else ""
        if head[84:88] == b"DX10" and head[128] in (95, 96):
            what = "a DDS of floats (BC6H)"
    if what:
        raise UserError(f"{path}: {what} is not read; convert it to PNG or TIFF first")


def bits_note(path: Path, format: str | None) -> tuple[str, ...]:
    """A note where Pillow reads a file of more than 8 bits per sample with 8."""
    if format not in ("AVIF", "HEIF"):
        return ()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    place = head.find(b"pixi")
    bits = max(head[place + 9 : place + 9 + head[place + 8]], default=8) if 0 <= place < len(head) - 9 else 8
    return (f"its {bits} bits per sample were reduced to 8",) if bits > 8 else ()


def other_format(path: Path) -> str:
    """The name of a format that Pillow knows and that is not read here, for a file that it identifies; else empty."""
    name = ""
    try:
        with Image.open(path) as image:
            name = image.format or ""
    except Exception:
        return ""
    # Some formats have no signature, and Pillow finds them in files of other kinds.
    opener = Image.OPEN.get(name)  # a thumbnail of XV, for example, has a format of another name
    if name and opener and opener[1] is None and Image.registered_extensions().get(path.suffix.lower()) != name:
        return ""
    return "" if name in FORMATS else name
