"""``liif view``: serves the viewer of a picture, or of the pictures in a folder, until it is stopped."""

import math
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from liif_core.cli.upscale_memory import give_freed_blocks_back
from liif_core.cli.upscale_request import memory_limit
from liif_core.errors import UserError
from liif_core.model.device import pick_device
from liif_core.model.tile_plan import default_memory
from liif_core.models.choosing import Choice, choose
from liif_core.registry.components import Registry
from liif_core.registry.discovery import discover
from liif_core.view import check_packages
from liif_core.view.gallery import MODELS, Entry, Gallery, NamedModel
from liif_core.view.opening import entry_of, entry_or_problem, image_files, shown

LARGEST_ZOOM = 1024


def view(
    source: Path,
    checkpoints: Sequence[Path],
    models: Sequence[str],
    zoom: float,
    memory: str | None,
    max_pixels: int,
    host: str,
    port: int | None,
    browser: bool,
    device: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve the viewer until the process is interrupted. Raises UserError for what is wrong with the request."""
    check_packages()
    from liif_core.view.running import allowed_hosts, start  # these need packages that are optional
    from liif_core.view.server import Server

    problems: list[str] = []
    limit = memory_limit(memory, problems)
    if not 1 <= zoom <= LARGEST_ZOOM or not math.isfinite(zoom):
        problems.append(f"--zoom {zoom:g}: expected a number from 1 to {LARGEST_ZOOM}")
    if len(checkpoints) + len(models) > len(MODELS):
        problems.append(
            f"--checkpoint, --model: expected at most {len(MODELS)} models to compare, "
            f"got {len(checkpoints) + len(models)}"
        )
    if port is not None and not 0 <= port <= 65535:
        problems.append(f"--port {port}: expected a number from 0 to 65535")
    if not source.exists():
        problems.append(f"{source}: no such file or folder")
    if problems:
        raise UserError(*problems)
    computing = pick_device(device or "auto")
    limit = limit or default_memory(computing)
    give_freed_blocks_back()
    folder = shown(source.name or source.resolve().name) if source.is_dir() else None
    files, unreadable = {shown(source.name): source}, list[str]()
    if folder is not None:
        files, unreadable = image_files(source)
    else:
        entry_of(source.name, source, (), limit, max_pixels)  # refuses the file before a model is loaded
    chosen = _choices(list(files.values()), checkpoints, models, discover())
    loaded = [choice.load(computing) for choice in chosen]
    entries: dict[str, Entry] = {}
    for number, (name, path) in enumerate(files.items()):
        own = [
            NamedModel(Path(choice.names[number]).name, its[choice.names[number]])
            for choice, its in zip(chosen, loaded)
        ]
        make = entry_of if folder is None else entry_or_problem
        entries[name] = make(name, path, own, limit, max_pixels)
    for line in unreadable:
        say(line)
    for reason in filter(None, (choice.reason for choice in chosen)):
        say(reason)
    running = start(Server(Gallery.within(limit, entries, zoom), folder, allowed_hosts(host)), host, port)
    try:
        running.warm_up(next(iter(entries)))
        say(f"{source}: {running.url} (Ctrl-C stops the server)")
        if host not in ("127.0.0.1", "localhost", "::1"):
            say("note: everybody who can reach this address can see the images")
        if browser and not webbrowser.open(running.url):
            say("no browser could be opened; open the address by hand")
        running.wait()
    except KeyboardInterrupt:  # the usual end
        pass
    finally:
        running.stop()


def _choices(files: list[Path], checkpoints: Sequence[Path], models: Sequence[str], registry: Registry) -> list[Choice]:
    if not checkpoints and not models:
        return [choose(files, None, None, registry)]
    return [
        *(choose(files, checkpoint, None, registry) for checkpoint in checkpoints),
        *(choose(files, None, model, registry) for model in models),
    ]
