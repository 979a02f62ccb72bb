"""``list_plugins``: what is installed, as typed records."""

import attrs
import pytest

from liif_core import Component, Importer, Registry, option
from liif_core.registry.components import KINDS, Origin
from liif_core.registry.listing import ComponentInfo, OptionInfo, list_plugins
from liif_core.registry.named_models import NamedModel

ONE = Origin("a = a", "one", "1.0")
TWO = Origin("b = b", "two", "2.0")


@attrs.frozen
class Options:
    width: int = option("Channels.")
    sizes: tuple[int, ...] = option("Sizes.", (1, 2))
    label: str | None = option("A label.", None)
    factors: list = option("Factors.", attrs.Factory(lambda: [1.5]))


def test_components_with_their_options():
    registry = Registry().with_plugin(TWO, {"decoder": [Component("x", dict)]})
    registry = registry.with_plugin(
        ONE, {"decoder": [Component("b", dict, Options)], "encoder": [Component("z", dict)]}
    )
    assert [(c.kind, c.name, c.distribution, c.version) for c in list_plugins(registry).components] == [
        ("encoder", "z", "one", "1.0"), ("decoder", "b", "one", "1.0"), ("decoder", "x", "two", "2.0"),
    ]  # fmt: skip
    assert list_plugins(registry).components[1].options == (
        OptionInfo("width", "int", "Channels.", True),
        OptionInfo("sizes", "tuple[int, ...]", "Sizes.", False, (1, 2)),
        OptionInfo("label", "str | None", "A label.", False, None),
        OptionInfo("factors", "list", "Factors.", False, [1.5]),
    )


def test_everything_else():
    model = NamedModel("tiny", "0" * 64, 10, "MIT", "nothing", url="https://example.org/tiny")
    importer = Importer("encoder", "rdn", dict)
    registry = Registry().with_plugin(ONE, {"encoder": [Component("x", dict)]}, [importer], [model])
    registry = registry.with_plugin(TWO, {"encoder": [Component("x", list)]}).with_remark("odd")
    registry = registry.with_broken(TWO, "ImportError", ("more",))
    listed = list_plugins(registry)
    assert [(m.name, m.distribution, m.version, m.model) for m in listed.models] == [("tiny", "one", "1.0", model)]
    assert [(i.part, i.name, i.distribution) for i in listed.importers] == [("encoder", "rdn", "one")]
    assert [(b.origin, b.reason, b.details) for b in listed.broken] == [(TWO, "ImportError", ("more",))]
    assert listed.remarks == (
        "odd",
        "encoder 'x' is offered by one 1.0 and two 2.0; choose one: use = 'one:x' or 'two:x'",
    )


def test_of_what_is_installed(registry):
    listed = list_plugins()
    assert [(c.kind, c.name) for c in listed.components if c.name == "edsr"] == [("encoder", "edsr")]
    for kind in KINDS:
        assert {c.name for c in listed.components if c.kind == kind} == {c.name for c, _ in registry.components[kind]}
    assert all(isinstance(c, ComponentInfo) and all(o.help for o in c.options) for c in listed.components)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        listed.components = ()
