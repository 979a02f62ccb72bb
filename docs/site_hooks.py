"""Parts of the site that are generated when it is built, so that they cannot go stale.

A line ``<!-- generated: NAME ARGUMENTS -->`` of a page is replaced by the Markdown that the function NAME of
``GENERATORS`` returns. MkDocs calls ``on_page_markdown``; the tests call ``generate``.
"""

import re
import runpy
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import click

import liif_zoo.trained
from liif_core.cli import liif, liif_run
from liif_core.cli.examples import as_toml, example
from liif_core.cli.new_plugin import new_plugin
from liif_core.experiment import schema
from liif_core.images import account
from liif_core.images.formats import WRITABLE
from liif_core.presets import PROTOCOLS
from liif_core.registry.components import KINDS, Choice, Component, Registry
from liif_core.registry.discovery import discover
from liif_core.registry.hookspecs import hookspec
from liif_core.registry.sources import extra_plugins
from liif_core.sizes import Scale

ROOT = Path(__file__).parents[1]
_MARKER = re.compile(r"^( *)<!-- generated: ([a-z-]+)((?: +\S+)*) -->$", re.M)
_WORDS = {int: "integer", float: "number", str: "string", bool: "boolean", Path: "path", Scale: "number or [y, x]"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The hook of MkDocs."""
    return generate(markdown)


def generate(markdown: str) -> str:
    """The page with its generated parts. Raises KeyError for a name that is not in ``GENERATORS``."""

    def replace(match: re.Match[str]) -> str:
        text = GENERATORS[match[2]](*match[3].split())
        return "\n".join(match[1] + line if line else "" for line in text.rstrip("\n").split("\n"))

    return _MARKER.sub(replace, markdown)


# The experiment file


def experiment_reference() -> str:
    """A section for every table of an experiment file."""
    return "\n\n".join(_sections())


def _sections() -> Iterator[str]:
    yield _section("Top level", schema.Experiment)
    yield _section("`[model]`: a composition", schema.CompositionSpec)
    yield _section("`[model]`: a whole model", schema.WholeModelSpec)
    yield _section("`[data]`", schema.TrainingData)
    yield _section("`[train]`", schema.TrainSpec)
    yield _section("`[train.optimizer]`", schema.Optimizer)
    yield _union("`[train.schedule]`", "use", schema.SCHEDULES)
    yield _section("`[train.start_from]`", schema.StartSpec)
    yield _section("`[train.teacher]`", schema.TeacherSpec)
    yield _section("`[validate]`", schema.ValidateSpec)
    yield _section("`[[evaluate]]`", schema.EvaluationSet)
    yield _section("`[run]`", schema.RunSpec)
    yield _union("Image sources: `images`", "source", schema.SOURCES)


def _section(title: str, cls: type, level: int = 2) -> str:
    return f"{'#' * level} {title}\n\n{_doc(cls)}\n\n{_table(cls)}"


def _union(title: str, tag: str, members: Mapping[str, type]) -> str:
    names = ", ".join(f"`{name}`" for name in members)
    parts = [f"## {title}\n\nThe key `{tag}` selects one of {names}. The other keys depend on it."]
    parts += [_section(f'`{tag} = "{name}"`', cls, level=3) for name, cls in members.items()]
    return "\n\n".join(parts)


def _doc(cls: type | types.ModuleType) -> str:
    """The docstring, without the repeated name of the table it begins with."""
    lines = [line.strip() for line in (cls.__doc__ or "").strip().splitlines()]
    text = re.sub(r"^``.*?``[.:]? *", "", "\n".join(lines)).replace("``", "`")
    return text[:1].upper() + text[1:]


def _table(cls: type) -> str:
    attrs.resolve_types(cls)
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for field in attrs.fields(cls):
        default = "required" if field.default is attrs.NOTHING else _shown(field.default)
        key, kind = field.name, _type_name(field.type)
        if cls is schema.WholeModelSpec and key == "model":  # the options stand beside it, in the same table
            key, kind = "use", "string"
        rows.append(f"| `{key}` | {kind} | {default} | {field.metadata['help']} |")
    return "\n".join(rows) if len(rows) > 2 else "It has no other keys."


def _shown(value: Any) -> str:
    if value is None or value == ():
        return ""
    if attrs.has(type(value)) and not isinstance(value, Scale):
        return "a table with its defaults"
    if isinstance(value, Scale):
        value = value.to_builtin
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def _type_name(kind: Any) -> str:
    inner = [member for member in get_args(kind) if member not in (type(None), ...)]
    if get_origin(kind) is Literal:
        return " or ".join(f'`"{value}"`' for value in inner)
    if get_origin(kind) in (typing.Union, types.UnionType):
        if all(attrs.has(member) for member in inner) and len(inner) > 1:
            return "table"
        return " or ".join(_type_name(member) for member in inner)
    if get_origin(kind) is tuple:
        if ... in get_args(kind):
            return f"list of {_type_name(inner[0]).replace('table', 'tables')}"
        return f"[{', '.join(_type_name(member) for member in inner)}]"
    if kind is Choice:
        return "table with `use`"
    return _WORDS.get(kind, "table")


# Components


SEPARATE = ("liif_rdn", "liif_splat", "liif_jpeg")  # modules of the distributions in plugins/


def components() -> str:
    """The options and an example of every component in this repository."""
    registry, parts = documented_registry(), []
    for kind in KINDS:
        offered = registry.components[kind]
        own = [(c, "") for c, origin in offered if origin.distribution == "liif-core"]
        own += [(c, module) for c, origin in offered for module in SEPARATE if origin.distribution == f"{module}.py"]
        if own:
            parts.append(f"## {kind.capitalize()}")
            parts += [_component(kind, component, module, registry) for component, module in sorted(own, key=_name)]
    return "\n\n".join(parts)


def documented_registry() -> Registry:
    """The included components, and those of the distributions in ``plugins/``, whether or not they are installed."""
    files = [ROOT / "plugins" / module.replace("_", "-") / f"{module}.py" for module in SEPARATE]
    with extra_plugins(*map(str, files)):
        return discover()


def _name(item: tuple[Component, str]) -> str:
    return item[0].name


def _component(kind: Any, component: Component, module: str, registry: Registry) -> str:
    lines = [f"### `{component.name}` {{ #{kind}-{component.name} }}"]
    documented = component.build if isinstance(component.build, type) else sys.modules[component.build.__module__]
    lines.append(_doc(documented))
    if module:
        folder = module.replace("_", "-")
        lines.append(f"In a separate distribution: `pip install plugins/{folder}` in a clone of liif-core.")
    lines.append(_table(component.options).replace("It has no other keys.", "It has no options."))
    table = example(component.name, component, registry)  # works if it is pasted
    if table:
        lines.append(f"```toml\n{as_toml(kind, table)}\n```")
    return "\n\n".join(lines)


def hooks() -> str:
    """A row for every hook of ``liif_core.registry.hookspecs``."""
    from liif_core.registry import hookspecs

    rows = ["| hook | offers |", "| --- | --- |"]
    for name, function in vars(hookspecs).items():
        if hasattr(function, f"{hookspec.project_name}_spec"):
            rows.append(f"| `{name}` | {(function.__doc__ or '').strip().replace('``', '`')} |")
    return "\n".join(rows)


def plugin_file(kind: str, name: str, file: str) -> str:
    """A file that ``liif new-plugin NAME --kind KIND`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        new_plugin(name, kind, Path(folder))
        text = (Path(folder) / name / file).read_text(encoding="utf-8")
    return _code(file, text)


def file(path: str) -> str:
    """A file of the repository."""
    return _code(Path(path).name, (ROOT / path).read_text(encoding="utf-8"))


def _code(title: str, text: str) -> str:
    language = {".py": "python", ".toml": "toml"}.get(Path(title).suffix, "text")
    return f'```{language} title="{title}"\n{text}```'


# The command line


def command_line() -> str:
    """The help of every command."""
    return "\n\n".join(_command(name, command) for name, command in commands().items())


def commands() -> dict[str, click.Command]:
    """Every command by what a user types; the commands of a group follow it."""
    found: dict[str, click.Command] = {"liif-run": liif_run}
    for name, command in sorted(liif.commands.items()):
        if name != "run":
            found[f"liif {name}"] = command
            inner = command.commands if isinstance(command, click.Group) else {}
            found |= {f"liif {name} {each}": inner[each] for each in sorted(inner)}
    return found


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    rows = ["| option | meaning |", "| --- | --- |"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help" and record[1]:
            rows.append(f"| `{_escaped(record[0])}` | {_escaped(record[1])} |")
    text = (command.help or "").strip()
    options = "\n".join(rows) if len(rows) > 2 else "It has no options."
    return f"## `{name}`\n\n```text\n{usage}\n```\n\n{text}\n\n{options}"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# Evaluation


def protocols() -> str:
    """A row for every evaluation protocol."""
    rows = ["| protocol | what is compared |", "| --- | --- |"]
    return "\n".join(rows + [f"| `{name}` | {protocol.description} |" for name, protocol in PROTOCOLS.items()])


def formats() -> str:
    """A row for every format in which images are written."""
    rows = []
    for suffix, kind in WRITABLE.items():
        depths = ", ".join(kind.depths)
        rows.append(f"| {kind.name} (`{suffix}`) | {depths} | {'yes' if kind.alpha else 'no'} | {kind.limit:,} |")
    return "\n".join(rows)


def scores() -> str:
    """The scores of the included models, as their cards have them."""
    found = {model.name: model.scores for model in liif_zoo.trained.liif_model_packs()}
    tests = list(dict.fromkeys(test for scores in found.values() for test in scores))
    lines = [f"| | {' | '.join(f'`{name}`' for name in found)} |", f"| --- |{' ---: |' * len(found)}"]
    for test in tests:
        cells = [f"{scores[test]:.2f}" if test in scores else "" for scores in found.values()]
        lines.append(f"| {test} | {' | '.join(cells)} |")
    return "\n".join(lines)


def equal_budget(*arguments: str) -> str:
    """A table or a chart of the leaderboard, as ``equal_budget.py`` makes it."""
    text: str = runpy.run_path(str(ROOT / "docs" / "equal_budget.py"))["equal_budget"](*arguments)
    return text


def kept_metadata() -> str:
    """A row for every kind of metadata: where it is read from, and where each format that is written holds it."""
    formats = [kind.name for kind in WRITABLE.values()]
    rows = [
        f"| | read from | {' | '.join(f'in {name}' for name in formats)} | changes |",
        "| --- " * (len(formats) + 3) + "|",
    ]
    for kind in account.KINDS:
        places = " | ".join(kind.held.get(name.upper(), "not kept") for name in formats)
        rows.append(f"| {kind.name} | {kind.read} | {places} | {kind.changes} |")
    return "\n".join(rows)


def dropped_metadata() -> str:
    """A row for what is never copied."""
    return "\n".join(["| | why |", "| --- | --- |", *(f"| {what} | {why} |" for what, why in account.DROPPED)])


GENERATORS: dict[str, Callable[..., str]] = {
    "experiment-reference": experiment_reference,
    "components": components,
    "hooks": hooks,
    "plugin-file": plugin_file,
    "file": file,
    "command-line": command_line,
    "protocols": protocols,
    "formats": formats,
    "scores": scores,
    "equal-budget": equal_budget,
    "kept-metadata": kept_metadata,
    "dropped-metadata": dropped_metadata,
}
