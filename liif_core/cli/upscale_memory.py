"""What keeps ``liif upscale`` within ``--memory``: a setting of the process, and a check of each file."""

import ctypes
import os
import platform

from liif_core.errors import UserError
from liif_core.images import Opening, Target
from liif_core.model.continuous import ContinuousModel
from liif_core.model.picture_batch import images_of
from liif_core.model.tile_plan import TooLittleMemory, plan_tiles
from liif_core.sizes import OutputSize

_MB = 1_000_000
_MMAP_THRESHOLD = -3  # mallopt's M_MMAP_THRESHOLD
_LARGE_BLOCK = 4 << 20  # bytes


def give_freed_blocks_back() -> None:
    """Make glibc return every freed block of 4 MB or more to the system at once; does nothing elsewhere.

    By default glibc learns to keep blocks of up to 32 MB. Those of one tile then do not fit in the gaps of the one
    before, and rendering took more than twice the memory (measured: 225 to 313 MB in place of 121).
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


def check_memory(memory: int, model: ContinuousModel, output: OutputSize, opening: Opening, target: Target) -> None:
    """Raises UserError, naming the memory that suffices, where ``memory`` bytes are too few on a CPU.

    They have to hold the input, or what is decoded of it at a time, the writer, and one tile. A quarter is for tiles.
    """
    beside = opening.held + target.memory
    least = max(opening.peak * 21 // 20, beside * 4 // 3)  # decoders take a little more than their arrays
    problem = ""
    if opening.peak > memory or memory - beside < memory // 4:
        problem = _what(opening, target)
    if opening.peak <= memory // 8:
        least, tiles = 2 * least, 0  # of a small image, tiles are planned once it is read
    else:
        tiles = _for_tiles(max(memory, least) - beside, model, output, opening)
    if problem or tiles:
        least = max(least, beside + tiles)
        raise UserError(
            f"--memory: {memory / _MB:.0f} MB are too few{problem or ' for a tile beside the input'}; "
            f"give at least {-(-least // _MB)} MB{_other_ways(opening, target)}"
        )


def _for_tiles(memory: int, model: ContinuousModel, output: OutputSize, opening: Opening) -> int:
    """0 where ``memory`` bytes suffice for tiles, else how many do."""
    found = opening.header
    try:
        plan_tiles(
            model, found.size, output.for_image(found.size), output.region, memory,
            images_of(model.channels, found.channels, found.alpha), opening.row_bytes,
        )  # fmt: skip
    except TooLittleMemory as error:
        return error.needed
    return 0


def _what(opening: Opening, target: Target) -> str:
    found = opening.header
    size = f"{found.size[1]}x{found.size[0]}"
    if target.memory > opening.peak:
        return f" to hold this image and a {target.format.name} of its size"
    if opening.in_parts:
        return f": reading this {found.format} of {size} pixels in parts takes {opening.peak / _MB:.0f} MB"
    return f": this {found.format} of {size} pixels is decoded as a whole, which takes {opening.peak / _MB:.0f} MB"


def _other_ways(opening: Opening, target: Target) -> str:
    ways = []
    if not opening.in_parts and opening.peak > target.memory:
        ways.append("convert the image to a TIFF with tiles, of which only some are decoded at a time")
    if target.format.whole:
        ways.append("use --format png or tif, which are written row by row")
    return "".join(f", or {way}" for way in ways)
