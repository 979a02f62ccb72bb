"""Models by name: the checkpoints that installed model packs offer."""
