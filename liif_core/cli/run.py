"""``python -m liif_core.cli.run``: the same as ``liif-run``, for torchrun, which starts modules."""

from liif_core.cli import liif_run

if __name__ == "__main__":
    liif_run()
