"""The command line. Each command imports its modules when it runs, so that ``--help`` is fast."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from liif_core.cli.common import DEVICE, ENSEMBLE, FILE, PLUGIN, SETTINGS, reported
from liif_core.cli.evaluation_commands import compare, evaluate, leaderboard
from liif_core.cli.model_commands import models
from liif_core.cli.streams import echo

_RUN_OPTIONS = [
    click.argument("experiment", type=FILE),
    click.option("--profile", metavar="P", help="Profile of the file to apply. Missing data is then an error."),
    click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a value of the file. May be repeated."
    ),
    click.option(
        "--out", type=FILE, metavar="DIR", help="Folder for the results.  [default: a new folder under runs/]"
    ),
    click.option("--resume", is_flag=True, help="Continue the run in the folder that --out names."),
    DEVICE,
    PLUGIN,
    click.option("--check", is_flag=True, help="Check the file, build the model, print both, and stop."),
    click.option("--quiet", is_flag=True, help="Show no progress bars."),
]


def _run(
    experiment: Path,
    profile: str,
    overrides: tuple[str, ...],
    out: Path,
    resume: bool,
    device: str,
    check: bool,
    quiet: bool,
) -> None:
    """Train, evaluate and report the EXPERIMENT that a TOML file describes."""
    from liif_core.cli.run_experiment import check_experiment, run_experiment

    if device:
        overrides += (f'run.device="{device}"',)
    if out is not None:
        out = out.expanduser()  # shells expand ~ in "--out ~/x", and not in "--out=~/x"
    if check:
        echo(check_experiment(experiment, profile, overrides, out, resume))
    else:
        run_experiment(experiment, profile, overrides, out, resume, quiet, echo)


def _with_run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(_RUN_OPTIONS):
        command = decorate(command)
    return command


liif_run = click.command("liif-run", context_settings=SETTINGS)(_with_run_options(reported(_run)))


@click.group(context_settings=SETTINGS)
@click.version_option(package_name="liif-core")
def liif() -> None:
    """Arbitrary-scale super-resolution with local implicit image functions."""


liif.add_command(models)
liif.add_command(evaluate)
liif.add_command(compare)
liif.add_command(leaderboard)
liif.add_command(click.command("run")(_with_run_options(reported(_run))))


@liif.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--checkpoint",
    type=FILE,
    metavar="C",
    help="Checkpoint: a .safetensors file, a published .pth file, or the name of an installed model.  "
    "[default: an included model that fits the file]",
)
@click.option("--model", metavar="NAME", help="Name of an installed model, as 'liif models' lists them.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Output file, for a single input.")
@click.option("--out-dir", type=FILE, metavar="DIR", help="Folder for outputs, which keep the names of their inputs.")
@click.option(
    "--scale", metavar="S|SY,SX", help="Magnification: a positive number, or one for each axis (vertical, horizontal)."
)
@click.option(
    "--size", metavar="WxH|Wx|xH", help="Output size in pixels. A side that is left out keeps the aspect ratio."
)
@click.option("--region", metavar="T,L,B,R", help="Part to render: top, left, bottom, right in input pixels.")
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    metavar="P",
    help="Precision of matrix products: float32, bf16 or fp16.",
)
@ENSEMBLE
@click.option("--memory", metavar="2GB", help="Approximate memory limit.  [default: a quarter of the free memory]")
@click.option("--format", metavar="F", help="Output format: png, jpg, webp or tif.  [default: from the file name]")
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Quality of jpg and webp.")
@click.option("--lossless", is_flag=True, help="Write lossless webp.")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=178_956_970,
    show_default=True,
    help="Refuse inputs with more pixels.",
)
@click.option(
    "--frame",
    type=click.IntRange(1),
    metavar="N",
    help="Render only this frame of an animation, or page of a TIFF; from 1. Default: all.",
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that already exist.")
@click.option("--json", "json_path", type=FILE, metavar="FILE", help="Write a summary of all files to this file.")
@DEVICE
@PLUGIN
@click.option("-v", "--verbose", is_flag=True, help="Say what became of each part of the metadata, and why.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@reported
def upscale(**options: Any) -> int:
    """Render images at any size. INPUT is a file, a folder, a pattern, or - for standard input.

    Without --checkpoint and --model, a model that ships with liif-core is used, if this version includes it: 'photo'
    for files that are compressed with losses (JPEG, lossy WebP), and 'clean' for all others.

    Under torchrun, or with RANK and WORLD_SIZE set, each process renders its share of the files.
    """
    from liif_core.cli.upscale import upscale

    return upscale(say=echo, complain=partial(echo, err=True), **options)


@liif.command()
@click.argument("source", type=FILE, metavar="INPUT")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=FILE,
    multiple=True,
    metavar="C",
    help="Checkpoint: a .safetensors file, a published .pth file, or the name of an installed model. Twice to compare "
    "two.  [default: an included model that fits the file]",
)
@click.option("--model", "models", multiple=True, metavar="NAME", help="Name of an installed model; also twice.")
@click.option(
    "--zoom", type=float, default=16, show_default=True, metavar="Z", help="How many times INPUT can be enlarged."
)
@click.option("--memory", metavar="2GB", help="Approximate memory limit.  [default: a quarter of the free memory]")
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=178_956_970,
    show_default=True,
    help="Refuse inputs with more pixels.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="Address to listen at.")
@click.option("--port", type=int, metavar="N", help="Port to listen at.  [default: 8765, or a free one]")
@click.option("--browser/--no-browser", default=True, help="Open a browser, or only print the address.")
@DEVICE
@PLUGIN
@reported
def view(**options: Any) -> None:
    """Look into an image at any zoom, in a browser. INPUT is a file, or a folder of images.

    A page shows the image up to --zoom times its size, rendered by a model where one looks, beside interpolation or a
    second model; regions can be saved at any size. The server speaks the IIIF Image API 3.0. Ctrl-C stops it.
    """
    from liif_core.cli.view import view

    view(say=echo, **options)


@liif.command("import")
@click.argument("published", metavar="IN.pth", type=FILE)
@click.argument("target", metavar="OUT.safetensors", type=FILE)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@PLUGIN
@reported
def import_(published: Path, target: Path, overwrite: bool) -> None:
    """Convert a published checkpoint to a liif-core checkpoint."""
    from liif_core.cli.checkpoints import import_checkpoint

    echo(import_checkpoint(published, target, overwrite))


@liif.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@PLUGIN
@reported
def plugins(name: str | None, as_json: bool) -> None:
    """List the components of the installed plugins, or describe the component NAME and its options."""
    if name is not None:
        from liif_core.cli.component import component_json, component_text

        echo(component_json(name) if as_json else component_text(name))
    else:
        from liif_core.cli.inventory import plugins_json, plugins_text

        echo(plugins_json() if as_json else plugins_text())


@liif.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    required=True,
    metavar="K",
    help="Kind of plugin: encoder, features, sampling, conditioning, decoder, model, degradation, "
    "or models (a model pack).",
)
@click.option(
    "--into",
    type=FILE,
    default=".",
    metavar="DIR",
    help="Folder in which to create NAME.  [default: the current folder]",
)
@reported
def new_plugin(name: str, kind: str, into: Path) -> None:
    """Create a working plugin to start from: a folder NAME with a module, its tests and an experiment."""
    from liif_core.cli.new_plugin import new_plugin

    echo(new_plugin(name, kind, into))


@liif.command()
@reported
def doctor() -> None:
    """Show versions, devices, data sets, plugins and their problems."""
    from liif_core.cli.inventory import doctor_text

    echo(doctor_text())
