"""``liif import``."""

from pathlib import Path

from liif_core.errors import UserError
from liif_core.registry.discovery import discover
from liif_core.training.checkpoint import load_checkpoint, model_of, save_checkpoint


def import_checkpoint(published: Path, target: Path, overwrite: bool) -> str:
    """Convert, and return a message. Raises UserError; an existing file is kept unless ``overwrite``."""
    if target.suffix != ".safetensors":
        raise UserError(f"{target}: expected a name that ends in .safetensors")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: already exists; use --overwrite to replace it")
    registry = discover()
    checkpoint = load_checkpoint(published, registry)
    model = model_of(checkpoint, registry, str(published))
    save_checkpoint(target, checkpoint)
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{target}: {count:,} parameters, {target.stat().st_size:,} bytes"
