"""Descriptions that programs write into TIFF files, and that state the size of the image.

Source: OME-TIFF specification 6.3 (Open Microscopy Environment, 2024); the others as tifffile and Aperio write them.
"""

import re

from liif_core.images import markup
from liif_core.images.markup import NotMarkup, Parents
from liif_core.images.picture import Change, Depth
from liif_core.sizes import Size

_OME_START = re.compile(r"\s*(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*)*<(\w+:)?OME[\s>]", re.DOTALL)
_SHAPED = re.compile(r'\s*(\{\s*"shape"\s*:|shape=\()')  # of tifffile
_APERIO = re.compile(r"\s*Aperio")
_OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_NAME = "description"
_ANOTHER = "and this output is another image"


def for_size(text: str, size: Size, depth: Depth, source: Size | None) -> tuple[str | None, Change | None]:
    """A description as it holds of an image of ``size`` and ``depth``, or None; and what was changed or dropped.

    ``source`` is the size of the picture that was enlarged as a whole, None where that is not known.
    """
    if _OME_START.match(text):
        return _ome(text, size, depth, source)
    if _SHAPED.match(text):
        return None, Change(_NAME, f"tifffile's, it states the input's shape, {_ANOTHER}")
    if _APERIO.match(text):
        return None, Change(_NAME, f"Aperio's, it states the sizes of a slide, {_ANOTHER}")
    return text, None


def _ome(text: str, size: Size, depth: Depth, source: Size | None) -> tuple[str | None, Change | None]:
    document = text.rstrip("\0 \r\n\t").encode()
    try:
        stated = {name: found for (_, name), found in markup.values(document).items()}
    except NotMarkup as problem:
        return None, Change(_NAME, f"OME-XML, it is malformed ({problem})")
    reason = _reason_to_drop(stated, size, source)
    if reason:
        return None, Change(_NAME, f"OME-XML, {reason}")

    def rule(parents: Parents, namespace: str, name: str, value: str) -> str | None:
        if not parents or parents[-1] != "Pixels":
            return value
        if name in ("SizeX", "SizeY"):
            return str(size[name == "SizeX"])
        if name in ("PhysicalSizeX", "PhysicalSizeY"):
            side = name == "PhysicalSizeX"
            return f"{float(value) * int(stated['SizeX' if side else 'SizeY'][0]) / size[side]:.10g}"
        return {"Type": _OME_TYPES[depth], "SignificantBits": None, "BigEndian": "false"}.get(name, value)

    try:
        corrected = markup.edited(document, rule).decode()
    except ValueError:
        return None, Change(_NAME, "OME-XML, its sizes are not numbers")
    return corrected, Change(_NAME, f"OME-XML, its sizes are now the output's, {size[1]} x {size[0]}")


def _reason_to_drop(stated: dict[str, list[str]], size: Size, source: Size | None) -> str:
    try:
        stored = [int(stated[name][0]) for name in ("SizeY", "SizeX")]
        planes = [int(number) for name in ("SizeZ", "SizeT") for number in stated.get(name, ["1"])]
        channels = [int(number) for number in stated.get("SizeC", ["1"])]
        samples = [int(number) for number in stated.get("SamplesPerPixel", ["1"])]
    except (KeyError, ValueError):
        return "it does not state its sizes"
    if len(stated.get("Pixels", [])) != 1 or set(planes) != {1} or channels != [sum(samples)] or len(samples) != 1:
        return f"it describes several planes, {_ANOTHER}"
    if source is None or tuple(stored) != source:
        return "it describes another part of the picture or another orientation"
    if not {"ROI", "TiffData:FileName", "BinData"}.isdisjoint(stated):
        return "it has positions in the input's pixels"
    return ""
