"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("liif-core")
except PackageNotFoundError:  # the source tree is used without installation
    __version__ = "0+unknown"
