"""What all commands share: exit codes, how mistakes are shown, and options. Nothing here imports torch."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Any

import click

from liif_core.cli import streams
from liif_core.cli.stopping import stopped_by_signals
from liif_core.cli.streams import echo

DONE, MISTAKE, PARTLY, INTERRUPTED = 0, 2, 3, 130


class _FileName(click.Path):
    """A path that is not empty, which an unset variable of a shell would otherwise make the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a name, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


FILE = _FileName(path_type=Path)


def reported(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's mistake as a message, with exit code 2, and an interruption with exit code 130.

    SIGTERM and SIGHUP interrupt as Ctrl-C does. What could not be printed makes exit code 0 a 3.
    ``plugins`` are the values of --plugin; those plugins are available while the command runs.
    """

    @wraps(command)
    def wrapper(*args: Any, plugins: tuple[str, ...] = (), **kwargs: Any) -> Any:
        from liif_core.cli import environment
        from liif_core.errors import Interrupted, UserError

        environment.prepare()
        streams.prepare()
        try:
            with stopped_by_signals(), warnings.catch_warnings(), _with_plugins(plugins):
                warnings.showwarning = _show_warning(warnings.showwarning)
                warnings.filterwarnings("ignore", module=r"PIL\.")  # our own messages name the file
                code = command(*args, **kwargs) or DONE
            if problem := streams.lost():
                echo(f"error: not all output could be printed ({problem})", err=True)
                code = code or PARTLY
            sys.exit(code)
        except UserError as error:
            for line in error.problems:
                echo(f"error: {line}", err=True)
            sys.exit(MISTAKE)
        except (Interrupted, KeyboardInterrupt) as error:
            echo(str(error) or "interrupted", err=True)
            sys.exit(INTERRUPTED)

    return wrapper


def _show_warning(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Show warnings of liif_core as one line each, and other warnings as Python does."""

    def show(message: Warning, category: type[Warning], *place: Any) -> None:
        if category.__module__.startswith("liif_core."):
            echo(f"warning: {message}", err=True)
        else:
            otherwise(message, category, *place)

    return show


def _with_plugins(plugins: tuple[str, ...]) -> AbstractContextManager[None]:
    if not plugins:
        return nullcontext()
    from liif_core.registry.sources import extra_plugins

    return extra_plugins(*plugins)


PLUGIN = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="P",
    help="Also use a plugin that is not installed: FILE.py, MODULE or MODULE:OBJECT. May be repeated.",
)
ENSEMBLE = click.option(
    "--ensemble",
    type=click.Choice(["4", "8"]),
    help="Average over quarter turns of the image (4), or over these and their mirror images (8). Takes as many times "
    "as long, and as much memory.",
)
DEVICE = click.option(
    "--device", metavar="D", help="Device to compute on: auto, cpu, cuda, cuda:N or mps.  [default: auto]"
)
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
