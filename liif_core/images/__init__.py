"""Images: files read without loss and written band by band, Pillow images and numpy arrays."""

from liif_core.images.account import Account
from liif_core.images.arrays import fill_transparent, from_planes, to_planes
from liif_core.images.formats import MAX_PIXELS, READABLE_SUFFIXES, UNREAD_SUFFIXES, WRITABLE, WRITABLE_SUFFIXES
from liif_core.images.frames import Several, frames, several
from liif_core.images.lossy import lossy_format
from liif_core.images.nodata import mark_rows
from liif_core.images.numpy_images import picture_from_array, picture_to_array
from liif_core.images.opening import Opening, survey
from liif_core.images.picture import Change, Depth, Header, Metadata, Picture
from liif_core.images.pillow_images import picture_from_pillow, picture_to_pillow
from liif_core.images.planning import check_output, format_of, needs_whole
from liif_core.images.reading import TooManyPixels, header, read_image
from liif_core.images.source import Source, from_picture
from liif_core.images.target import Encoding, Target
from liif_core.images.timing import Timing
from liif_core.images.writing import Writer, open_frames, open_writer

__all__ = [
    "MAX_PIXELS",
    "READABLE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "WRITABLE",
    "WRITABLE_SUFFIXES",
    "Account",
    "Change",
    "Depth",
    "Encoding",
    "Header",
    "Metadata",
    "Opening",
    "Picture",
    "Several",
    "Source",
    "Target",
    "Timing",
    "TooManyPixels",
    "Writer",
    "check_output",
    "fill_transparent",
    "format_of",
    "frames",
    "from_picture",
    "from_planes",
    "header",
    "lossy_format",
    "mark_rows",
    "needs_whole",
    "open_frames",
    "open_writer",
    "picture_from_array",
    "picture_from_pillow",
    "picture_to_array",
    "picture_to_pillow",
    "read_image",
    "several",
    "survey",
    "to_planes",
]
