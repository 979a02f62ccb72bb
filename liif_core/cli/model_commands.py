"""The commands of ``liif models``."""

import click

from liif_core.cli.common import PLUGIN, SETTINGS, reported
from liif_core.cli.streams import echo

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_NAME = click.argument("name", metavar="NAME")


def _show_list(as_json: bool) -> None:
    from liif_core.cli.models import models_json, models_text

    echo(models_json() if as_json else models_text())


@click.group(context_settings=SETTINGS, invoke_without_command=True)
@_JSON
@PLUGIN
@click.pass_context
def models(context: click.Context, as_json: bool, plugins: tuple[str, ...]) -> None:
    """List the trained models that 'liif upscale --model' and liif_core.load accept by name.

    They come with liif-core or with installed model packs. With a command, describe or fetch one of them.
    """
    if context.invoked_subcommand is None:
        reported(_show_list)(as_json=as_json, plugins=plugins)
    elif as_json or plugins:
        raise click.UsageError(f"give options after the command: liif models {context.invoked_subcommand} ...")


@models.command()
@_NAME
@_JSON
@PLUGIN
@reported
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME: license, training data, scores, file, and how to bring the file by hand."""
    from liif_core.cli.models import info_json, info_text

    echo(info_json(name) if as_json else info_text(name))


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@PLUGIN
@reported
def fetch(names: tuple[str, ...]) -> None:
    """Download the model NAME into the cache, and check it. A download that was interrupted is continued."""
    from liif_core.cli.models import fetch

    fetch(names, echo)


@models.command()
@_NAME
@PLUGIN
@reported
def path(name: str) -> None:
    """Print the path of the checkpoint of the model NAME, which must be on this machine."""
    from liif_core.cli.models import path_text

    echo(path_text(name))
