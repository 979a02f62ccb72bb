"""The checks of a decoder: codes and conditions -> colors."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from liif_core.model.protocols import GlobalDecoder, Known, Maps, Query, Sites
from liif_core.testing import common
from liif_core.testing.blocks import decode_block
from liif_core.testing.case import Check, builds_for, expect_same, expect_shape, fail, random
from liif_core.testing.decoder_case import GRID, DecoderCase
from liif_core.testing.radius import expect_radius, over_declared


def contract(case: DecoderCase) -> None:
    """The module has the attributes and methods of its contract, and needs only conditions that are given."""
    module = case.build()
    common.contract(case)
    found = getattr(module, "scale_dependent", "missing")
    if not isinstance(found, bool):
        fail(f"scale_dependent is {found!r}; expected True or False")
    methods = ["prepare", "decode"] + (["partial_statistic", "with_statistic"] if module.num_statistics else [])
    for name in methods:
        if not callable(getattr(module, name, None)):
            why = f", which num_statistics = {module.num_statistics} requires" if name not in methods[:2] else ""
            fail(f"no method {name!r}{why}")
    if module.num_statistics and "known" not in inspect.signature(module.decode).parameters:
        fail("decode has no argument 'known', which a decoder with statistics has: see liif_core.GlobalDecoder")
    needs = getattr(module, "needs", None)
    if not isinstance(needs, frozenset) or not all(isinstance(name, str) for name in needs):
        fail(f"needs is {needs!r}; expected a frozenset of names")
    missing = sorted(needs - case.conditions.keys())
    if missing:
        fail(f"the decoder needs {missing[0]!r}: give conditions = {{{missing[0]!r}: <width>, ...}} to this test")


def prepare(case: DecoderCase) -> None:
    """Maps are named tensors (B, ..., width). They depend on the cell only if the decoder is ``scale_dependent``.

    A decoder that is not receives no image conditions.
    """
    module, inputs = case.build(), case.inputs()
    try:
        with torch.no_grad():
            one, other = (case.maps(module, inputs, torch.full((1, 1, 2), size)) for size in (0.1, 0.7))
    except KeyError as error:
        hint = "" if module.scale_dependent else "; declare scale_dependent = True to receive image conditions"
        fail(f"prepare: no image condition or map {error}{hint}")
    for maps in (one, other):
        if not isinstance(maps, Mapping):
            fail(f"prepare returned {type(maps).__name__}; expected a mapping of names to tensors")
        for name, values in maps.items():
            if not isinstance(values, Tensor) or values.ndim < 2:
                fail(f"map {name!r} is {type(values).__name__}; expected a tensor (B, ..., width)")
    if not module.scale_dependent:
        expect_same("maps prepared again", other, one, tolerance=1e-6)
    elif one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one):
        case.report("scale_dependent: declared True, but maps do not depend on the cell; False would avoid recomputing")


def other_resolution(case: DecoderCase) -> None:
    """The image may have another size than the grid of codes.

    A decoder that does not support that raises ValueError in ``prepare``.
    """
    module, inputs, query = case.build(), case.inputs(), pixel_grid_query()
    for height, width in ((10, 14), (3, 4)):
        image = random(2, case.out_channels, height, width)
        words = f"colors for {GRID[0]} x {GRID[1]} codes of a {height} x {width} image"
        with torch.no_grad():
            try:
                maps = case.maps(module, {**inputs, "image": image}, query.cell)
            except ValueError:
                continue
            expect_shape(words, case.decoded(module, maps, query, GRID), 2, *query.shape, case.out_channels)


def pixel_grid_query() -> Query:
    return Query.grid(torch.linspace(-0.9, 0.95, 4), torch.linspace(-0.8, 1, 6), torch.tensor([0.2, 0.3]))


def shape(case: DecoderCase) -> None:
    """Colors are (B, *Q, out_channels), for points and for a pixel grid, for 1 and 3 channels.

    A decoder that does not support one of these numbers raises ValueError in ``build``.
    """
    for channels, module in builds_for(case, "out_channels", {1, 3}):
        inputs = case.inputs()
        points = Query.points(inputs["coord"], inputs["cell"][:, :1])
        for words, query in (("points", points), ("a pixel grid", pixel_grid_query())):
            with torch.no_grad():
                colors = case.colors(module, inputs, query)
            expect_shape(f"colors of {words}", colors, len(inputs["features"]), *query.shape, channels)


def pixel_grid(case: DecoderCase) -> None:
    """A pixel grid has the same colors as its pixels queried as points in one call."""
    module, inputs, query = case.build(), case.inputs(), pixel_grid_query()
    points = Query.points(query.coord.flatten(1, 2), query.cell.flatten(1, 2))
    with torch.no_grad():
        together = case.colors(module, inputs, query).flatten(1, 2)
        expect_same("a pixel grid", {"colors": together}, {"colors": case.colors(module, inputs, points)})


def _parts(query: Query) -> list[tuple[slice, slice, Query]]:
    """A pixel grid in parts of different sizes."""
    assert query.axes is not None
    rows, columns = query.axes
    return [
        (down, across, Query.grid(rows[down], columns[across], query.cell.flatten()))
        for down in (slice(0, 1), slice(1, 4))
        for across in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]


def _expect_parts(case: DecoderCase, module: Any, maps: Maps, query: Query, whole: Tensor, known: Known | None) -> None:
    for down, across, part in _parts(query):
        words = f"a part of {part.shape[0]} x {part.shape[1]} queries"
        colors = case.decoded(module, maps, part, GRID, known)
        expect_same(words, {"colors": colors}, {"colors": whole[:, down, across]})


def independent(case: DecoderCase) -> None:
    """If ``num_statistics`` is 0, a color depends on its own query only."""
    module, query = case.build(), pixel_grid_query()
    if module.num_statistics != 0:
        return
    with torch.no_grad():
        maps = case.maps(module, case.inputs(), query.cell)
        _expect_parts(case, module, maps, query, case.decoded(module, maps, query, GRID), None)


def statistics(case: DecoderCase) -> None:
    """If ``num_statistics`` is above 0, statistics computed in parts give the colors of one call with all queries."""
    module, query = case.build(), pixel_grid_query()
    if not module.num_statistics:
        return
    if not isinstance(module, GlobalDecoder):
        fail("expected the attributes and methods of liif_core.GlobalDecoder")
    with torch.no_grad():
        maps = case.maps(module, case.inputs(), query.cell)
        whole = case.decoded(module, maps, query, GRID)
        known = _known(case, module, maps, query)
        colors = case.decoded(module, maps, query, GRID, known)
        expect_same("all queries, with statistics computed in parts", {"colors": colors}, {"colors": whole})
        _expect_parts(case, module, maps, query, whole, known)


def _known(case: DecoderCase, module: Any, maps: Maps, query: Query) -> Known:
    """What the module keeps of the statistics of a query, which are computed in parts."""
    count = query.shape[0] * query.shape[1]
    known: Known = ()
    for number in range(module.num_statistics):
        total: Any = 0
        for _, _, part in _parts(query):
            mean = module.partial_statistic(maps, *case.arguments(part, GRID), known)
            if not isinstance(mean, Tensor) or mean.ndim < 1 or len(mean) != 2:
                fail(f"partial_statistic number {number}: expected a tensor (B, ...), got {_described(mean)}")
            total = total + mean * (part.shape[0] * part.shape[1] / count)
        known = module.with_statistic(known, total)
        if not isinstance(known, tuple) or len(known) != number + 1:
            fail(f"with_statistic: expected a tuple of {number + 1} tensors, got {_described(known)}")
    return known


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__


def stateless(case: DecoderCase) -> None:
    """Everything that ``decode`` uses of an image is in its maps: images can be queried in turn."""
    module, query = case.build(), pixel_grid_query()
    first, second = (case.inputs(seed=seed) for seed in (0, 1))
    with torch.no_grad():
        maps = case.maps(module, first, query.cell)
        expected = case.decoded(module, maps, query, GRID)
        case.maps(module, second, query.cell)
        found = case.decoded(module, maps, query, GRID)
        expect_same("after preparing another image", {"colors": found}, {"colors": expected})


def radius(case: DecoderCase) -> None:
    """Codes and pixels further from the codes of a query than ``radius`` do not influence its color.

    None means that they may. If ``num_statistics`` is None, colors depend on everything anyway.
    """
    module = case.build()
    if module.radius is None or module.num_statistics is None:
        return
    query = pixel_grid_query()

    def color_of_each_code(signal: Tensor) -> Tensor:
        inputs = {"features": signal[:, : case.in_channels], "image": signal[:, case.in_channels :]}
        grid = signal.shape[-2], signal.shape[-1]
        index = torch.arange(grid[0] * grid[1]).view(1, 1, *grid).expand(case.neighbours, 1, *grid)
        offset = torch.full((*index.shape, 2), 0.3, dtype=signal.dtype)
        sites = Sites(index, offset, torch.full(index.shape, 1 / case.neighbours, dtype=signal.dtype))
        points = Query.points(torch.zeros(1, *grid, 2), torch.tensor([0.2, 0.3]))
        given = {name: value.to(signal.dtype) for name, value in case.conditions_of(points, sites, GRID).items()}
        arguments = [case.maps(module, inputs, points.cell.to(signal.dtype)), sites, given]
        if module.num_statistics:  # those of another image, so that they do not depend on this one
            other = {name: value[:1].to(signal.dtype) for name, value in case.inputs(seed=1).items()}
            maps = case.maps(module, other, query.cell.to(signal.dtype))
            sites, conditions = case.arguments(query, GRID)
            sites = Sites(sites.index, sites.offset.to(signal.dtype), sites.weight.to(signal.dtype))
            known: Known = ()
            for _ in range(module.num_statistics):
                statistic = module.partial_statistic(maps, sites, _converted(conditions, signal.dtype), known)
                known = module.with_statistic(known, statistic)
            arguments.append(tuple(value.detach() for value in known))
        colors: Tensor = module.decode(*arguments)
        return colors.permute(0, 3, 1, 2)

    measured = expect_radius(module, color_of_each_code, case.in_channels + case.out_channels, module.radius)
    if message := over_declared("radius", module.radius, measured):
        case.report(message)


def _converted(values: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: value.to(dtype) for name, value in values.items()}


CHECKS: tuple[Check, ...] = (
    *common.OPTIONS, contract, prepare, common.parameters, shape, other_resolution, pixel_grid, decode_block,
    independent, statistics, stateless, radius, *common.COMMON,
)  # fmt: skip
