"""``python -m liif_core``: the same as ``liif``."""

from liif_core.cli import liif

if __name__ == "__main__":
    liif()
