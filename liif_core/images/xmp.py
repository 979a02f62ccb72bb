"""XMP packets: what no longer holds of an enlarged picture is corrected or removed, all else is copied as it is.

Sources: XMP specification, part 2 (Adobe, 2022); Ultra HDR image format 1.1, Motion Photo and Photo Sphere (Google);
Guidelines for Handling Image Metadata (Metadata Working Group, 2010).
"""

import re
from html import escape

from liif_core.images import markup
from liif_core.images.markup import NotMarkup, Parents
from liif_core.images.picture import Change
from liif_core.sizes import Size

_GOOGLE = "http://ns.google.com/photos/"
TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_BASIC, _NOTE = "http://ns.adobe.com/xap/1.0/", "http://ns.adobe.com/xmp/note/"
_DC, _DIMENSIONS = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_PANORAMA = _GOOGLE + "1.0/panorama/"
_REGIONS = ("http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/")

_GAIN_MAP = "it belongs to a second image in the file, which is not read"
_OTHER_IMAGE = "they describe further images or videos in the file, which are not read"
_STORAGE = "they describe how the input's pixels are stored"
# Namespaces that are removed whole.
_REMOVED = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": Change("XMP's gain map", _GAIN_MAP),
    "http://ns.apple.com/HDRGainMap/1.0/": Change("XMP's gain map", _GAIN_MAP),
    "http://ns.apple.com/pixeldatainfo/1.0/": Change("XMP's gain map", _GAIN_MAP),
    **{
        _GOOGLE + name: Change("XMP's list of items", _OTHER_IMAGE)
        for name in (
            "1.0/container/", "1.0/container/item/", "dd/1.0/container/", "dd/1.0/item/", "dd/1.0/device/",
            "dd/1.0/camera/", "dd/1.0/image/", "dd/1.0/depthmap/", "dd/1.0/lightestimate/", "dd/1.0/pose/",
            "1.0/depthmap/", "1.0/image/", "1.0/audio/", "1.0/focus/",
        )
    },
}  # fmt: skip
_MOTION = re.compile(r"MotionPhoto|MicroVideo")
_STORED = {
    TIFF: re.compile(
        r"BitsPerSample|Compression|PhotometricInterpretation|SamplesPerPixel|PlanarConfiguration|YCbCr\w+|NativeDigest"
    ),
    _EXIF: re.compile(r"CompressedBitsPerPixel|NativeDigest|FocalPlane\w+|SubjectArea|SubjectLocation"),
}
_SIDES = {
    (TIFF, "ImageLength"): 0,
    (TIFF, "ImageWidth"): 1,
    (_EXIF, "PixelYDimension"): 0,
    (_EXIF, "PixelXDimension"): 1,
}
_ORIENTATION = (TIFF, "Orientation")
_PLAIN_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)(\d)")
# Keywords of a PNG, and the properties of Dublin Core that hold the same
_PLACES = (
    ("Title", "title", "Alt"),
    ("Author", "creator", "Seq"),
    ("Description", "description", "Alt"),
    ("Copyright", "rights", "Alt"),
)
_UTF16 = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"))
_NOT_SAFE = (b"hdrgm", b"GainMap", b"Container:", b"MotionPhoto", b"MicroVideo")


def orientation(packet: bytes | None) -> int | None:
    """The orientation that a packet states, or None."""
    if not packet:
        return None
    try:
        stated = markup.values(_plain(packet)).get(_ORIENTATION, [])
    except NotMarkup:
        match = _PLAIN_ORIENTATION.search(packet)
        stated = [match[2].decode()] if match else []
    return next((int(value) for value in map(str.strip, stated) if value.isdecimal()), None)


def upright(packet: bytes, turned: bool) -> tuple[bytes | None, list[Change], list[Change]]:
    """A packet for an upright picture of a single image: what is left of it, what was changed, and what was dropped.

    ``turned`` says that the picture was turned, so that positions in it no longer hold. Its sizes are still those of
    the input, see ``for_size``.
    """
    changed: dict[Change, None] = {}
    dropped: dict[Change, None] = {}

    def rule(parents: Parents, namespace: str, name: str, value: str) -> str | None:
        reason = _reason_to_remove(namespace, name, turned)
        if reason is not None:
            dropped[reason] = None
            return None
        if (namespace, name) == _ORIENTATION and value.strip() not in ("1", ""):
            changed[Change("XMP's orientation", f"{value.strip()} became 1")] = None
            return "1"
        return value

    try:
        return markup.edited(_plain(packet), rule), list(changed), list(dropped)
    except NotMarkup as problem:
        if any(word in packet for word in _NOT_SAFE):
            return None, [], [Change("XMP", f"it names further images in the file, and is malformed ({problem})")]
        fixed = _PLAIN_ORIENTATION.sub(rb"\g<1>1", packet)
        note = [Change("XMP's orientation", "it became 1")] if fixed != packet else []
        return fixed, [*note, Change("XMP", f"malformed ({problem}), its sizes were not corrected")], []


def for_size(packet: bytes, size: Size, media_type: str, source: Size | None) -> tuple[bytes, list[Change]]:
    """A packet for an image of ``size`` and its media type (empty: unknown), and what was changed.

    ``source`` is the size of the picture that was enlarged as a whole, None where that is not known: panorama and
    regions are then removed.
    """
    changed: dict[Change, None] = {}

    def rule(parents: Parents, namespace: str, name: str, value: str) -> str | None:
        new: str | None = value
        if (namespace, name) in _SIDES and value.strip():
            new = str(size[_SIDES[namespace, name]])
        elif namespace == _DIMENSIONS and name in ("w", "h") and "AppliedToDimensions" in parents:
            new = str(size[name == "w"])
        elif (namespace, name) == (_DC, "format") and media_type and value.startswith("image/"):
            new = media_type
        elif namespace == _PANORAMA and source is not None:
            new = _scaled(name, value, size, source)
        elif namespace in (_PANORAMA, *_REGIONS) and source is None:
            changed[Change("XMP's positions", "they are those of the whole picture, and were removed")] = None
            return None
        if new != value:
            kind = ("media type", media_type) if name == "format" else ("sizes", f"{size[1]} x {size[0]}")
            changed[Change(f"XMP's {kind[0]}", f"now the output's, {kind[1]}")] = None
        return new

    try:
        return markup.edited(packet, rule), list(changed)
    except NotMarkup:
        return packet, []


def from_text(text: dict[str, str]) -> tuple[bytes | None, set[str]]:
    """A packet with the texts that it has a place for, None where there are none, and their keywords."""
    parts = []
    for keyword, name, kind in _PLACES:
        if text.get(keyword):
            words = escape(text[keyword])
            language = ' xml:lang="x-default"' if kind == "Alt" else ""
            parts.append(f"<dc:{name}><rdf:{kind}><rdf:li{language}>{words}</rdf:li></rdf:{kind}></dc:{name}>")
    if not parts:
        return None, set()
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:dc="{_DC}">{"".join(parts)}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )
    return packet.encode(), {keyword for keyword, _, _ in _PLACES if text.get(keyword)}


def _plain(packet: bytes) -> bytes:
    """A packet in UTF-8, without what may surround it."""
    for start, encoding in _UTF16:
        if packet.startswith(start):
            packet = packet.decode(encoding, "replace").encode()
            break
    return packet.strip(b"\0 \r\n\t").removeprefix(b"\xef\xbb\xbf")


def _reason_to_remove(namespace: str, name: str, turned: bool) -> Change | None:
    if namespace in _REMOVED:
        return _REMOVED[namespace]
    if namespace == _GOOGLE + "1.0/camera/" and _MOTION.match(name):
        return Change("XMP's motion photo", "its video is not read")
    if namespace == _BASIC and name == "Thumbnails":
        return Change("XMP's thumbnail", "it shows the input")
    if namespace == _NOTE and name == "HasExtendedXMP":
        return Change("extended XMP", "the part of XMP in further segments of a JPEG is not read")
    if namespace in _STORED and _STORED[namespace].fullmatch(name):
        return Change("XMP's description of the pixels", _STORAGE)
    if turned and namespace in (_PANORAMA, *_REGIONS):
        return Change("XMP's positions", "the picture was turned")
    return None


def _scaled(name: str, value: str, size: Size, source: Size) -> str:
    """A length or position of a panorama in pixels, in pixels of an image of ``size``."""
    side = 1 if re.search(r"Width|Left", name) else 0 if re.search(r"Height|Top", name) else None
    try:
        return value if side is None else str(round(float(value) * size[side] / source[side]))
    except ValueError:
        return value
