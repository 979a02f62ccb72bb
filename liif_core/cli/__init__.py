"""The command line. Commands import what they need when they run, so that ``--help`` is quick."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import click

DONE, MISTAKE, PARTLY, INTERRUPTED = 0, 2, 3, 130
_FILE = click.Path(path_type=Path)


def _reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a user's mistake into its message and exit code 2, and an interruption into exit code 130.

    ``plugins`` are the plugins that ``_PLUGIN`` named; the command finds them among the others.
    """

    @wraps(command)
    def wrapper(*args: Any, plugins: tuple[str, ...] = (), **kwargs: Any) -> Any:
        from liif_core.errors import Interrupted, UserError

        try:
            with warnings.catch_warnings(), _with_plugins(plugins):
                warnings.showwarning = _show_warning(warnings.showwarning)
                sys.exit(command(*args, **kwargs) or DONE)
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(MISTAKE)
        except (Interrupted, KeyboardInterrupt) as error:
            click.echo(str(error) or "interrupted", err=True)
            sys.exit(INTERRUPTED)

    return wrapper


def _show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Our own warnings are messages, a line each; others are shown as ever."""

    def show(message: Warning, category: type[Warning], *place: Any) -> None:
        if category.__module__.startswith("liif_core."):
            click.echo(f"warning: {message}", err=True)
        else:
            otherwise(message, category, *place)

    return show


def _with_plugins(plugins: tuple[str, ...]) -> AbstractContextManager[None]:
    if not plugins:
        return nullcontext()
    from liif_core.registry.sources import extra_plugins

    return extra_plugins(*plugins)


_PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="P",
    help="Use a plugin that is not installed too: FILE.py, MODULE or MODULE:OBJECT.",
)
_DEVICE = click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps.")
_RUN_OPTIONS = [
    click.argument("experiment", type=_FILE),
    click.option(
        "--profile", metavar="P", help="Apply a profile that the file declares; then missing data is an error."
    ),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value; may be repeated."),
    click.option("--out", type=_FILE, metavar="DIR", help="Where results go.  [default: a new folder under runs/]"),
    click.option("--resume", is_flag=True, help="Go on with the run in the folder."),
    _DEVICE,
    _PLUGIN,
    click.option("--check", is_flag=True, help="Check and build everything, print it, and stop."),
    click.option("--quiet", is_flag=True, help="No progress bars."),
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
    from liif_core.cli.run import check_experiment, run_experiment

    if device:
        overrides += (f'run.device="{device}"',)
    if check:
        click.echo(check_experiment(experiment, profile, overrides))
    else:
        run_experiment(experiment, profile, overrides, out, resume, quiet, click.echo)


def _with_run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(_RUN_OPTIONS):
        command = decorate(command)
    return command


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
liif_run = click.command("liif-run", context_settings=_SETTINGS)(_with_run_options(_reported(_run)))


@click.group(context_settings=_SETTINGS)
@click.version_option(package_name="liif-core")
def liif() -> None:
    """Arbitrary-scale super-resolution with local implicit image functions."""


liif.add_command(click.command("run")(_with_run_options(_reported(_run))))


@liif.command()
@click.argument("checkpoint", type=_FILE)
@click.option("--hr", required=True, type=_FILE, metavar="FOLDER", help="High-resolution images.")
@click.option(
    "--lr",
    type=_FILE,
    metavar="FOLDER",
    help="Their low-resolution images, for a single --scale.  [default: made by bicubic]",
)
@click.option(
    "--scale", "scales", multiple=True, required=True, metavar="S", help="Such as 4, 2.5 or 2,3.7; may be repeated."
)
@click.option("--protocol", default="benchmark", show_default=True, metavar="NAME", help="benchmark, div2k or rgb.")
@click.option("--json", "json_path", type=_FILE, metavar="FILE", help="Write the results there too.")
@click.option("--ssim", is_flag=True, help="SSIM too.")
@click.option("--precision", default="float32", show_default=True, metavar="P", help="float32, bf16 or fp16.")
@_DEVICE
@_PLUGIN
@click.option("--quiet", is_flag=True, help="No progress bar.")
@_reported
def evaluate(checkpoint: Path, **options: Any) -> None:
    """Measure a CHECKPOINT (ours, or a published .pth) on a folder of images, beside bicubic."""
    from liif_core.cli.evaluate import evaluate_checkpoint

    click.echo(evaluate_checkpoint(checkpoint, **options))


@liif.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--checkpoint", required=True, type=_FILE, metavar="C", help="Ours, or a published .pth.")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Where to write a single image.")
@click.option("--out-dir", type=_FILE, metavar="DIR", help="Where to write images under their own names.")
@click.option(
    "--scale", metavar="S|SY,SX", help="Magnification, any positive number; vertical and horizontal may differ."
)
@click.option("--size", metavar="WxH|Wx|xH", help="Size in pixels; a side left out follows the other.")
@click.option("--region", metavar="T,L,B,R", help="Only this part: top, left, bottom, right in input pixels.")
@click.option("--precision", default="float32", show_default=True, metavar="P", help="float32, bf16 or fp16.")
@click.option("--memory", metavar="2GB", help="About how much to use.  [default: a share of what is free]")
@click.option("--format", metavar="F", help="png, jpg, webp or tif.  [default: by the name]")
@click.option("--quality", type=click.IntRange(1, 100), default=95, show_default=True, help="Of jpg and webp.")
@click.option("--lossless", is_flag=True, help="Lossless webp.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=178_956_970, show_default=True, help="Refuse larger inputs."
)
@click.option("--overwrite", is_flag=True, help="Render again what is there already.")
@click.option("--json", "json_path", type=_FILE, metavar="FILE", help="Write what was done there.")
@_DEVICE
@_PLUGIN
@click.option("--quiet", is_flag=True, help="No progress bar.")
@_reported
def upscale(**options: Any) -> int:
    """Render images (files, folders, patterns) at any size.

    Under torchrun, or with RANK and WORLD_SIZE set, each process takes its share of the files.
    """
    from liif_core.cli.upscale import upscale

    return upscale(say=click.echo, **options)


@liif.command("import")
@click.argument("published", metavar="IN.pth", type=_FILE)
@click.argument("target", metavar="OUT.safetensors", type=_FILE)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@_PLUGIN
@_reported
def import_(published: Path, target: Path, overwrite: bool) -> None:
    """Convert a published checkpoint to ours."""
    from liif_core.cli.checkpoints import import_checkpoint

    click.echo(import_checkpoint(published, target, overwrite))


@liif.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="For tools.")
@_PLUGIN
@_reported
def plugins(name: str | None, as_json: bool) -> None:
    """List what the installed plugins offer, and which are broken; or all about the component NAME."""
    if name is not None:
        from liif_core.cli.component import component_json, component_text

        click.echo(component_json(name) if as_json else component_text(name))
    else:
        from liif_core.cli.inventory import plugins_json, plugins_text

        click.echo(plugins_json() if as_json else plugins_text())


@liif.command("new-plugin")
@click.argument("name")
@click.option("--kind", required=True, metavar="K", help="encoder, features, sampling, conditioning or decoder.")
@click.option("--into", type=_FILE, default=".", metavar="DIR", help="Where the folder NAME is made.  [default: here]")
@_reported
def new_plugin(name: str, kind: str, into: Path) -> None:
    """Write a plugin that works, to start from: a folder NAME with a module, its tests and an experiment."""
    from liif_core.cli.new_plugin import new_plugin

    click.echo(new_plugin(name, kind, into))


@liif.command()
@_reported
def doctor() -> None:
    """Show versions, devices, data found, plugins and their problems."""
    from liif_core.cli.inventory import doctor_text

    click.echo(doctor_text())
