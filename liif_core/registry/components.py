"""What plugins offer besides trained models, and the registry that holds everything by kind and name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from liif_core.errors import UserError, did_you_mean
from liif_core.registry.named_models import NamedModel

Kind = Literal["encoder", "features", "sampling", "conditioning", "decoder", "model", "degradation"]
PARTS: tuple[Kind, ...] = ("encoder", "features", "sampling", "conditioning", "decoder")  # what a model is composed of
KINDS: tuple[Kind, ...] = (*PARTS, "model", "degradation")


def option(help: str, default: Any = attrs.NOTHING, *, check: Any = None, **metadata: Any) -> Any:
    """A field of an options class: a sentence of help, a default value if there is one, and an attrs validator.

    A list is declared as a tuple: ``sizes: tuple[int, ...] = option("...", (64, 64))``. ``example=64`` gives the value
    that ``liif plugins NAME`` shows for an option without a default. ``quick=8`` gives the value that the small
    experiments of ``liif new-plugin`` use.
    """
    return field(default=default, validator=check, metadata={"help": help, **metadata})


@frozen
class NoOptions:
    """The options class of a component that has no options."""


@frozen
class Component:
    """A component that a plugin offers.

    ``name`` has lower-case letters, digits, and single hyphens or underscores between them. ``options`` is a frozen
    attrs class whose fields are made with ``option``. ``build(options, **sizes)`` returns the component. Sizes that are
    known only at run time are keyword arguments: ``in_channels`` for encoders and features; ``in_channels``,
    ``out_channels``, ``neighbours`` and ``conditions`` (a mapping of name to width) for decoders; ``channels`` for
    models; none for samplings, conditionings and degradations.

    ``build`` raises ValueError for options or sizes that do not fit each other. The user sees its message, preceded by
    the component's name.

    ``describe(options)`` returns a few words for reports that name the component and its size, such as "EDSR 16x64".
    Without it, reports give ``name``.
    """

    name: str
    build: Callable[..., Any]
    options: type = NoOptions
    describe: Callable[[Any], str] | None = field(default=None, eq=False)  # wording only


@frozen
class Importer:
    """Converts a published checkpoint, or the encoder in one.

    ``part = "encoder"``: ``convert(arguments, state) -> (table, state)``. ``arguments`` and ``state`` are the published
    ones; the result is a ``[model.encoder]`` table and the state dict of that encoder.

    ``part = "model"``: ``convert(arguments, state, encoder) -> (table, state)``. The result is the ``[model]`` table
    and the state dict of the whole model; ``encoder(spec, state)`` converts the encoder with the importer of its name.

    ``part = "file"``: ``convert(content, encoder) -> (table, state) | None``, for checkpoints of any other form than
    {'model': {'name', 'args', 'sd'}}. ``content`` is what the file holds: what torch.load returns for a .pth; nested
    dictionaries of NumPy arrays for a pickle; for a folder, a dictionary from file names to contents. None: this is
    not the form that the importer knows. It must not change ``content``.

    ``convert`` raises ValueError, with one sentence, for a checkpoint that has the form and cannot be imported.
    """

    part: Literal["model", "encoder", "file"]
    name: str
    convert: Callable[..., tuple[dict[str, Any], dict[str, Any]] | None]


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
    """A plugin that could not be used, and why."""

    origin: Origin
    reason: str  # one line
    details: tuple[str, ...] = ()  # more lines, such as the changes of the plugin API


@frozen
class Choice:
    """A component that an experiment uses, with checked options. Nothing is built yet."""

    kind: Kind
    use: str  # as the experiment wrote it
    component: Component
    options: Any
    origin: Origin

    def build(self, **sizes: Any) -> Any:
        """The module. ``sizes`` are the keywords of ``Component`` for this kind."""
        return self.component.build(self.options, **sizes)

    def describe(self) -> str:
        """The component and its size in a few words, on one line; its name, if the plugin has no description."""
        try:
            text = self.component.describe(self.options) if self.component.describe else ""
        except Exception:  # of a plugin; a report is worth more than its wording
            text = ""
        return " ".join(text.split()) if isinstance(text, str) and text.strip() else self.component.name


@frozen
class Registry:
    """Everything that the installed plugins offer. Immutable: ``with_plugin`` returns a new one."""

    components: Mapping[Kind, tuple[tuple[Component, Origin], ...]] = dict.fromkeys(KINDS, ())
    importers: tuple[tuple[Importer, Origin], ...] = ()
    models: tuple[tuple[NamedModel, Origin], ...] = ()
    broken: tuple[BrokenPlugin, ...] = ()
    remarks: tuple[str, ...] = ()  # warnings about plugins that work, one line each

    def with_plugin(
        self,
        origin: Origin,
        components: Mapping[Kind, Iterable[Component]],
        importers: Iterable[Importer] = (),
        models: Iterable[NamedModel] = (),
    ) -> "Registry":
        """A registry with one more plugin. Raises ValueError if its distribution offers one name twice."""
        for kind, offered in components.items():
            names = [component.name for component in offered]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"offers two {kind} components named {twice[0]!r}")
            for other, owner in self.components[kind]:
                if owner.distribution == origin.distribution and other.name in names:
                    raise ValueError(f"offers {kind} {other.name!r}, as does {owner.plugin} of the same distribution")
        models = tuple(models)
        titles = [m.name for m in models] + [m.name for m, o in self.models if o.distribution == origin.distribution]
        twice = sorted({name for name in titles if titles.count(name) > 1})
        if twice:
            raise ValueError(f"its distribution offers two models named {twice[0]!r}")
        merged = {k: self.components[k] + tuple((c, origin) for c in components.get(k, ())) for k in KINDS}
        return attrs.evolve(
            self,
            components=merged,
            importers=self.importers + tuple((item, origin) for item in importers),
            models=self.models + tuple((model, origin) for model in models),
        )

    def with_broken(self, origin: Origin, reason: str, details: tuple[str, ...] = ()) -> "Registry":
        """A registry that also records a plugin that could not be used."""
        return attrs.evolve(self, broken=self.broken + (BrokenPlugin(origin, reason, details),))

    def with_remark(self, remark: str) -> "Registry":
        """A registry with one more warning for ``liif plugins`` to show."""
        return attrs.evolve(self, remarks=self.remarks + (remark,))

    def names(self, kind: Kind) -> list[str]:
        """The accepted values of ``use``, sorted. A name that two distributions offer is listed once for each."""
        offered = [(c.name, o.distribution) for c, o in self.components[kind]]
        plain = [name for name, _ in offered]
        return sorted(name if plain.count(name) == 1 else f"{owner}:{name}" for name, owner in offered)

    def find(self, kind: Kind, use: str) -> tuple[Component, Origin]:
        """The component that ``use`` names: ``"name"``, or ``"distribution:name"`` where two distributions offer it.

        If several distributions offer the very same component, there is nothing to choose, and the plain name works.
        Raises ValueError with the nearest name and the installed ones.
        """
        owner, _, name = use.rpartition(":")
        found = [(c, o) for c, o in self.components[kind] if c.name == name and owner in ("", o.distribution)]
        if len({component for component, _ in found}) == 1:
            return min(found, key=lambda pair: pair[1].distribution)
        if found:
            both = " and ".join(str(origin) for _, origin in found)
            ways = " or ".join(repr(f"{origin.distribution}:{name}") for _, origin in found)
            raise ValueError(f"{name!r} is offered by {both}; choose one: use = {ways}")
        known = self.names(kind)
        raise ValueError(f"no {kind} is named {use!r}{self._hint(use, owner, known)}")

    def model_names(self) -> list[str]:
        """The names of the models of model packs, sorted; with their distribution where two offer one name."""
        names = [model.name for model, _ in self.models]
        return sorted(m.name if names.count(m.name) == 1 else f"{o.distribution}:{m.name}" for m, o in self.models)

    def find_model(self, use: str) -> tuple[NamedModel, Origin]:
        """The model of a model pack that is called ``"name"`` or ``"distribution:name"``.

        If several distributions offer the very same model, the plain name works. Raises ValueError for an unknown name,
        with the nearest name and the installed ones, and for a name that two packs offer for different models.
        """
        owner, _, name = use.rpartition(":")
        found = [(m, o) for m, o in self.models if m.name == name and owner in ("", o.distribution)]
        if found and all(model == found[0][0] for model, _ in found):
            return min(found, key=lambda pair: pair[1].distribution)
        if found:
            both = " and ".join(str(origin) for _, origin in found)
            ways = " or ".join(repr(f"{origin.distribution}:{name}") for _, origin in found)
            raise ValueError(f"the model {name!r} is offered by {both}; choose one: {ways}")
        nothing = "none; models come from model packs, which pip installs"
        raise ValueError(f"no model is named {use!r}{self._hint(use, owner, self.model_names(), nothing)}")

    def _hint(self, use: str, owner: str, known: list[str], nothing: str = "none") -> str:
        """What to do about an unknown name: the nearest name, the distribution to install, and broken plugins."""
        name = use.rpartition(":")[2]
        same = {other for other in self._distributions() if other.replace("_", "-") == owner.replace("_", "-")}
        parts = [did_you_mean(use, [f"{other}:{name}" for other in same]) or did_you_mean(use, known)]
        if owner and owner not in self._distributions():
            example = f"in a clone of liif-core that has it, pip install plugins/{owner}"
            parts.append(
                f"no plugin of the distribution {owner!r} is installed: install it from its authors ({example})"
            )
        parts.append(f"installed: {', '.join(known) or nothing}")
        for plugin in self.broken:
            changed = f" (what changed: {'; '.join(plugin.details)})" if plugin.details else ""
            reason = f"{plugin.reason}{changed}"
            parts.append(f"plugin {plugin.origin.plugin} of {plugin.origin} could not be loaded: {reason}")
        return "; ".join(parts)

    def _distributions(self) -> set[str]:
        """The distributions that have plugins, broken ones included."""
        offered = [owner for kind in KINDS for _, owner in self.components[kind]]
        offered += [owner for _, owner in (*self.importers, *self.models)] + [plugin.origin for plugin in self.broken]
        return {origin.distribution for origin in offered}

    def importer(self, part: str, name: str) -> Importer:
        """The importer of a published part. Raises UserError if there is none, or more than one."""
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
