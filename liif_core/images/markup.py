"""XML edited in place: values corrected and parts removed, while all other bytes stay as they are."""

import re
from collections.abc import Callable
from html import escape
from xml.parsers import expat

from attrs import define, field

Parents = tuple[str, ...]  # local names, from the outermost element
# Called with the parents, namespace, local name and value of an attribute or element. It returns the value to write,
# or None for a part that is to be removed. The value of an element that has elements in it is "", and stays.
Rule = Callable[[Parents, str, str, str], str | None]

_ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_TAG_END = re.compile(rb"(?:\"[^\"]*\"|'[^']*'|[^\"'>])*>")
_FORBIDDEN = (b"<!DOCTYPE", b"<!ENTITY")  # neither XMP nor OME has them; they could grow without limit


class NotMarkup(ValueError):
    """A document is not well-formed XML, or has declarations that are not read."""


@define(eq=False)
class _Element:
    namespace: str
    name: str
    start: int
    content: int  # where its start tag ends
    end: int = -1
    content_end: int = -1
    text: str = ""
    nested: bool = False
    attributes: list[tuple[str, str, str]] = field(factory=list)  # namespace, local name, value


def edited(document: bytes, rule: Rule) -> bytes:
    """A document after ``rule``. Raises NotMarkup.

    Declarations of namespaces whose last use was removed are removed too.
    """
    if any(word in document for word in _FORBIDDEN):
        raise NotMarkup("it has a document type declaration")
    edits: list[tuple[int, int, bytes]] = []
    removed: set[str] = set()
    kept: set[str] = set()
    declared: list[tuple[int, int, bytes, str]] = []
    for parents, element in _elements(document):
        value = "" if element.nested else element.text
        new = rule(parents, element.namespace, element.name, value)
        (kept if new is not None else removed).add(element.namespace)
        if new is None:
            edits.append((element.start, element.end, b""))
        elif new != value and element.content_end >= element.content:
            edits.append((element.content, element.content_end, escape(new).encode()))
        given = iter(element.attributes)
        for match in _ATTRIBUTE.finditer(document, element.start, element.content):
            if match[1] == b"xmlns" or match[1].startswith(b"xmlns:"):
                declared.append((*match.span(), match[1], (match[2] or match[3] or b"").decode("utf-8", "replace")))
                continue
            namespace, name, old = next(given)
            changed = rule((*parents, element.name), namespace, name, old)
            (kept if changed is not None and new is not None else removed).add(namespace)
            if changed is None:
                edits.append((*match.span(), b""))
            elif changed != old:
                place = match.span(2) if match[2] is not None else match.span(3)
                edits.append((*place, escape(changed).encode()))
    if removed:
        edits += [(start, end, b"") for start, end, _, uri in declared if uri in removed - kept]
    return _applied(document, edits)


def values(document: bytes) -> dict[tuple[str, str], list[str]]:
    """All values by namespace and local name. Raises NotMarkup."""
    found: dict[tuple[str, str], list[str]] = {}

    def note(_: Parents, namespace: str, name: str, value: str) -> str:
        found.setdefault((namespace, name), []).append(value)
        return value

    edited(document, note)
    return found


def _elements(document: bytes) -> list[tuple[Parents, _Element]]:
    parser = expat.ParserCreate("utf-8", " ")
    parser.ordered_attributes = True
    parser.buffer_text = True
    found: list[tuple[Parents, _Element]] = []
    open_ones: list[_Element] = []

    def start(name: str, attributes: list[str]) -> None:
        at = parser.CurrentByteIndex
        tag = _TAG_END.match(document, at)
        if tag is None:
            raise NotMarkup("a tag has no end")
        element = _Element(*_split(name), at, tag.end())
        element.attributes = [(*_split(key), value) for key, value in zip(attributes[::2], attributes[1::2])]
        found.append((tuple(other.name for other in open_ones), element))
        if open_ones:
            open_ones[-1].nested = True
        open_ones.append(element)

    def end(_: str) -> None:
        element = open_ones.pop()
        if document[element.content - 2 : element.content] == b"/>":
            element.end = element.content
        else:
            element.content_end = parser.CurrentByteIndex
            element.end = document.index(b">", element.content_end) + 1

    def text(data: str) -> None:
        if open_ones:
            open_ones[-1].text += data

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    try:
        parser.Parse(document, True)
    except expat.ExpatError as problem:
        raise NotMarkup(str(problem)) from None
    return found


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace, local


def _applied(document: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    parts, at = [], 0
    for start, end, new in sorted(edits, key=lambda edit: (edit[0], -edit[1])):
        if start >= at:  # else within a part that is removed
            parts += [document[at:start], new]
            at = end
    return b"".join([*parts, document[at:]])
