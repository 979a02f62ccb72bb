"""The commands that measure models: ``liif evaluate``, ``liif compare`` and ``liif leaderboard``."""

from pathlib import Path
from typing import Any

import click

from liif_core.cli.common import DEVICE, ENSEMBLE, FILE, PLUGIN, reported
from liif_core.cli.streams import echo

_HR = click.option("--hr", required=True, type=FILE, metavar="FOLDER", help="Folder with high-resolution images.")
_LR = click.option(
    "--lr",
    type=FILE,
    metavar="FOLDER",
    help="Folder with the matching low-resolution images, for one --scale.  [default: bicubic downsampling of --hr]",
)
_SCALES = click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="S",
    help="Scale to evaluate, such as 4, 2.5 or 2,3.7 (vertical, horizontal). May be repeated.  [default: those of the "
    "preset's published tables, where it has some]",
)
_SSIM = click.option("--ssim", is_flag=True, help="Also compute SSIM.")
_PRECISION = click.option(
    "--precision",
    default="float32",
    show_default=True,
    metavar="P",
    help="Precision of matrix products: float32, bf16 or fp16.",
)
_RESULTS = click.option(
    "--results",
    "results_path",
    type=FILE,
    metavar="FILE.jsonl",
    help="Also add the results to this file, for 'liif leaderboard'.",
)
_NAME = click.option("--name", metavar="TEXT", help="Name of the data set in tables.  [default: that of the folder]")
_QUIET = click.option("--quiet", is_flag=True, help="Show no progress bar.")


@click.command()
@click.argument("checkpoint", type=FILE)
@_HR
@_LR
@_NAME
@_SCALES
@click.option(
    "--protocol",
    "--preset",
    "protocols",
    multiple=True,
    default=["benchmark"],
    show_default=True,
    metavar="NAME",
    help="Evaluation protocol, such as benchmark, div2k or rgb. May be repeated.",
)
@click.option("--json", "json_path", type=FILE, metavar="FILE", help="Also write the results to this file.")
@click.option("--csv", "csv_path", type=FILE, metavar="FILE", help="Also write a table of all images to this file.")
@_RESULTS
@_SSIM
@_PRECISION
@ENSEMBLE
@DEVICE
@PLUGIN
@_QUIET
@reported
def evaluate(checkpoint: Path, **options: Any) -> None:
    """Compare a CHECKPOINT with bicubic interpolation on a folder of images.

    CHECKPOINT is a liif-core checkpoint, a published .pth file, or the name of a model of an installed model pack.
    """
    from liif_core.cli.evaluate import evaluate_checkpoint

    evaluate_checkpoint(checkpoint, say=echo, **options)


@click.command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@_HR
@_LR
@_NAME
@_SCALES
@click.option("--preset", "--protocol", "preset", default="fair", show_default=True, metavar="NAME", help="Preset.")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="Folder for the reports and tables.")
@click.option("--overwrite", is_flag=True, help="Replace reports that already exist in --out.")
@_RESULTS
@_SSIM
@_PRECISION
@ENSEMBLE
@DEVICE
@PLUGIN
@_QUIET
@reported
def compare(**options: Any) -> None:
    """Compare models on a folder of images, under one preset.

    MODEL is a liif-core checkpoint, a published .pth file, or the name of a model of an installed model pack; or
    bicubic or lanczos, interpolation of the low-resolution image by Pillow. Prints a table, and writes report.html (one
    file with crops, error maps and charts), report.md, results.jsonl, table.csv and table.tex.
    """
    from liif_core.cli.compare import compare

    compare(say=echo, **options)


@click.command()
@click.argument("folder", type=FILE)
@click.option("-o", "output", required=True, type=FILE, metavar="FILE.html", help="Page to write; it is replaced.")
@click.option("--markdown", type=FILE, metavar="FILE.md", help="Also write the tables as Markdown.")
@click.option("--title", default="Leaderboard", show_default=True, metavar="TEXT", help="Heading of the page.")
@reported
def leaderboard(**options: Any) -> None:
    """Render the results in all files *.jsonl below FOLDER as one page.

    The page is one file, with a table and a chart of PSNR against time for each data set, preset and scale. Of results
    of the same weights, the newest is shown.
    """
    from liif_core.cli.leaderboard import leaderboard

    leaderboard(say=echo, **options)
