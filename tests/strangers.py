"""Other people's plugins, as pip would leave them: a module and its entry point, in a folder for the path."""

import itertools
import sys
from pathlib import Path

from liif_core.registry.hookspecs import ENTRY_POINT_GROUP

HEADER = "from attrs import frozen\nfrom torch import nn\nfrom liif_core import Component, hookimpl, option\n"
ENCODER = '''
@frozen
class Options:
    width: int = option("Channels.", 4)

class Encoder(nn.Conv2d):
    """One convolution."""
    multiple_of, receptive_radius = 1, 1

    def __init__(self, options, in_channels):
        super().__init__(in_channels, options.width, 3, padding=1)

@hookimpl
def liif_encoders():
    return Component("{name}", Encoder, Options)
'''
_modules = itertools.count()


def encoder(name: str) -> str:
    """The source of a plugin with one working encoder."""
    return HEADER + ENCODER.replace("{name}", name)


def install(folder: Path, distribution: str, source: str, version: str = "1.0", group: str = ENTRY_POINT_GROUP) -> str:
    """Put a distribution with one plugin in ``folder``; returns the name of its module."""
    module = f"stranger_{next(_modules)}"
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    with open(info / "entry_points.txt", "a", encoding="utf-8") as file:
        file.write(f"[{group}]\nmain = {module}\n")
    return module


def forget() -> None:
    """So that another test may import its own."""
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]
