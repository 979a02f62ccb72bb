"""Components by kind and name, and the choice an experiment makes among them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from liif_core.errors import UserError, did_you_mean

Kind = Literal["encoder", "features", "sampling", "conditioning", "decoder"]
KINDS: tuple[Kind, ...] = ("encoder", "features", "sampling", "conditioning", "decoder")


def option(help: str, default: Any = attrs.NOTHING, *, check: Any = None, **metadata: Any) -> Any:
    """A field of an options class: a sentence of help, a default if there is one, an attrs validator.

    Lists are tuples: ``sizes: tuple[int, ...] = option("...", (64, 64))``. ``example=64`` is shown by ``liif plugins
    NAME`` where there is no default; ``quick=8`` is what the small experiments of ``liif new-plugin`` use.
    """
    return field(default=default, validator=check, metadata={"help": help, **metadata})


@frozen
class NoOptions:
    """For components that have nothing to choose."""


@frozen
class Component:
    """One thing a plugin offers.

    ``options`` is a frozen attrs class whose fields are made with ``option``. ``build(options, **sizes)`` returns the
    module; the sizes known only at run time are its keywords: encoders and features get ``in_channels``; decoders get
    ``in_channels``, ``out_channels``, ``neighbours`` and ``conditions``, a mapping of name to width; the others none.
    """

    name: str
    build: Callable[..., Any]
    options: type = NoOptions


@frozen
class Importer:
    """How a published checkpoint's part becomes ours.

    ``part = "encoder"``: ``convert(arguments, state) -> (table, state)``, where ``arguments`` and ``state`` are the
    checkpoint's own, and the result is a ``[model.encoder]`` table and the state dict of that encoder.
    ``part = "model"``: ``convert(arguments, state, encoder) -> (table, state)``, the ``[model]`` table and the state
    dict of the whole model; ``encoder(spec, state)`` converts the encoder by whichever plugin knows its name.
    """

    part: Literal["model", "encoder"]
    name: str
    convert: Callable[..., tuple[dict[str, Any], dict[str, Any]]]


@frozen
class Origin:
    """Where something was installed from."""

    plugin: str  # entry point, "name = module"
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@frozen
class BrokenPlugin:
    """A plugin that could not be used, and why, in one line."""

    origin: Origin
    reason: str


@frozen
class Choice:
    """A component that an experiment uses, with its options, checked; nothing is built yet."""

    kind: Kind
    use: str  # as the experiment wrote it
    component: Component
    options: Any
    origin: Origin

    def build(self, **sizes: Any) -> Any:
        """The module. ``sizes`` are the keywords of ``Component`` for this kind."""
        return self.component.build(self.options, **sizes)


@frozen
class Registry:
    """Everything the installed plugins offer. Immutable: ``with_plugin`` gives a new one."""

    components: Mapping[Kind, tuple[tuple[Component, Origin], ...]] = {kind: () for kind in KINDS}
    importers: tuple[tuple[Importer, Origin], ...] = ()
    broken: tuple[BrokenPlugin, ...] = ()
    remarks: tuple[str, ...] = ()  # what is odd about plugins and stops nothing, one line each

    def with_plugin(
        self, origin: Origin, components: Mapping[Kind, Iterable[Component]], importers: Iterable[Importer] = ()
    ) -> "Registry":
        """A registry that has one more plugin. Raises ValueError if its distribution offers one name twice."""
        for kind, offered in components.items():
            names = [component.name for component in offered]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"offers two {kind} components named {twice[0]!r}")
            for other, owner in self.components[kind]:
                if owner.distribution == origin.distribution and other.name in names:
                    raise ValueError(f"offers {kind} {other.name!r}, as does {owner.plugin} of the same distribution")
        merged = {k: self.components[k] + tuple((c, origin) for c in components.get(k, ())) for k in KINDS}
        return attrs.evolve(
            self, components=merged, importers=self.importers + tuple((item, origin) for item in importers)
        )

    def with_broken(self, origin: Origin, reason: str) -> "Registry":
        """A registry that also remembers why a plugin is not in it."""
        return attrs.evolve(self, broken=self.broken + (BrokenPlugin(origin, reason),))

    def with_remark(self, remark: str) -> "Registry":
        """A registry that has one more line for ``liif plugins`` to show."""
        return attrs.evolve(self, remarks=self.remarks + (remark,))

    def names(self, kind: Kind) -> list[str]:
        """What ``use`` may say, sorted; a name that two distributions offer is listed once for each of them."""
        offered = [(c.name, o.distribution) for c, o in self.components[kind]]
        plain = [name for name, _ in offered]
        return sorted(name if plain.count(name) == 1 else f"{owner}:{name}" for name, owner in offered)

    def find(self, kind: Kind, use: str) -> tuple[Component, Origin]:
        """The component that ``use`` names: ``"name"``, or ``"distribution:name"`` where two have it.

        One component that several distributions offer, such as one that passes on another's, is no matter of choice.
        Raises ValueError, with the nearest name and what is installed.
        """
        owner, _, name = use.rpartition(":")
        found = [(c, o) for c, o in self.components[kind] if c.name == name and owner in ("", o.distribution)]
        if len({component for component, _ in found}) == 1:
            return min(found, key=lambda pair: pair[1].distribution)
        if found:
            both = " and ".join(str(origin) for _, origin in found)
            ways = " or ".join(repr(f"{origin.distribution}:{name}") for _, origin in found)
            raise ValueError(f"{name!r} is offered by {both}; say which: use = {ways}")
        known = self.names(kind)
        message = f"no {kind} is named {use!r}{did_you_mean(use, known)}"
        if owner and owner not in self._distributions():
            example = f"in a clone of liif-core that has it, pip install plugins/{owner}"
            message += f"; no plugin of the distribution {owner!r} is installed: install it from its authors ({example})"
        message += f"; installed: {', '.join(known) or 'none'}"
        for plugin in self.broken:
            message += f"; plugin {plugin.origin.plugin} of {plugin.origin} could not be loaded: {plugin.reason}"
        raise ValueError(message)

    def _distributions(self) -> set[str]:
        """Those that offer anything, or would if they were not broken."""
        offered = [owner for kind in KINDS for _, owner in self.components[kind]]
        offered += [owner for _, owner in self.importers] + [plugin.origin for plugin in self.broken]
        return {origin.distribution for origin in offered}

    def importer(self, part: str, name: str) -> Importer:
        """The importer of a published part. Raises UserError naming the kind of plugin that is missing."""
        found = [(item, owner) for item, owner in self.importers if (item.part, item.name) == (part, name)]
        if len(found) > 1:
            both = " and ".join(str(owner) for _, owner in found)
            raise UserError(f"the {part} {name!r} is imported by {both}; uninstall all but one of them")
        if found:
            return found[0][0]
        known = sorted(item.name for item, _ in self.importers if item.part == part)
        raise UserError(
            f"no installed plugin imports the {part} {name!r}{did_you_mean(name, known)} (known: {', '.join(known)}): "
            f"install a plugin whose liif_importers hook offers it, then try again"
        )
