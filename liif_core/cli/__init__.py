"""The command line. Commands import what they need when they run, so that ``--help`` is quick."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

DONE, MISTAKE, PARTLY, INTERRUPTED = 0, 2, 3, 130
_FILE = click.Path(path_type=Path)


def _reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a user's mistake into its message and exit code 2, and an interruption into exit code 130."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from liif_core.errors import Interrupted, UserError

        try:
            sys.exit(command(*args, **kwargs) or DONE)
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(MISTAKE)
        except (Interrupted, KeyboardInterrupt) as error:
            click.echo(str(error) or "interrupted", err=True)
            sys.exit(INTERRUPTED)

    return wrapper


_DEVICE = click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps.")
_RUN_OPTIONS = [
    click.argument("experiment", type=_FILE),
    click.option("--profile", metavar="P", help="Apply a profile that the file declares; then missing data is an error."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value; may be repeated."),
    click.option("--out", type=_FILE, metavar="DIR", help="Where results go.  [default: a new folder under runs/]"),
    click.option("--resume", is_flag=True, help="Go on with the run in the folder."),
    _DEVICE,
    click.option("--check", is_flag=True, help="Check and build everything, print it, and stop."),
    click.option("--quiet", is_flag=True, help="No progress bars."),
]


def _run(experiment: Path, profile: str, overrides: tuple[str, ...], out: Path, resume: bool, device: str, check: bool, quiet: bool) -> None:
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
@click.option("--lr", type=_FILE, metavar="FOLDER", help="Their low-resolution images, for a single --scale.  [default: made by bicubic]")
@click.option("--scale", "scales", multiple=True, required=True, metavar="S", help="Such as 4, 2.5 or 2,3.7; may be repeated.")
@click.option("--protocol", default="benchmark", show_default=True, metavar="NAME", help="benchmark, div2k or rgb.")
@click.option("--json", "json_path", type=_FILE, metavar="FILE", help="Write the results there too.")
@click.option("--ssim", is_flag=True, help="SSIM too.")
@click.option("--precision", default="float32", show_default=True, metavar="P", help="float32, bf16 or fp16.")
@_DEVICE
@click.option("--quiet", is_flag=True, help="No progress bar.")
@_reported
def evaluate(checkpoint: Path, **options: Any) -> None:
    """Measure a CHECKPOINT (ours, or a published .pth) on a folder of images, beside bicubic."""
    from liif_core.cli.evaluate import evaluate_checkpoint

    click.echo(evaluate_checkpoint(checkpoint, **options))


@liif.command("import")
@click.argument("published", metavar="IN.pth", type=_FILE)
@click.argument("target", metavar="OUT.safetensors", type=_FILE)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is there.")
@_reported
def import_(published: Path, target: Path, overwrite: bool) -> None:
    """Convert a published checkpoint to ours."""
    from liif_core.cli.checkpoints import import_checkpoint

    click.echo(import_checkpoint(published, target, overwrite))


@liif.command()
@click.option("--json", "as_json", is_flag=True, help="For tools.")
@_reported
def plugins(as_json: bool) -> None:
    """List what the installed plugins offer, and which are broken."""
    from liif_core.cli.inventory import plugins_json, plugins_text

    click.echo(plugins_json() if as_json else plugins_text())


@liif.command()
@_reported
def doctor() -> None:
    """Show versions, devices, data found, plugins and their problems."""
    from liif_core.cli.inventory import doctor_text

    click.echo(doctor_text())
