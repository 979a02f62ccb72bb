"""The changes of the plugin API, version by version, for authors of plugins made for an older version."""

CHANGES: dict[int, tuple[str, ...]] = {
    3: (
        "entry points: the group is liif_core.plugins.v3",
        "Conditioning: declare scope = 'query', or 'image' for what depends on the cell alone",
        "Decoder: num_statistics replaces pointwise and passes: 0, the number of statistics, or None",
        "Decoder.prepare(field, image_conditions): the second argument was called told",
        "Decoder.radius may be None: prepare reads the whole image",
        "SetDecoder is GlobalDecoder: partial_statistic(maps, sites, conditions, known) replaces moment, "
        "with_statistic(known, statistic) replaces knowing, and decode takes known, a tuple of tensors",
        "LatentField: grid is its own (h, w), which samplings receive; image is the normalized LR image",
        "helpers: liif_core.nn and liif_core.importing replace liif_paper.linear, liif_paper.published and "
        "liif_lineage.given",
    ),
}


def changes_after(version: int) -> list[str]:
    """The changes of the plugin API after ``version``, one line each."""
    return [line for number, lines in sorted(CHANGES.items()) if number > version for line in lines]
