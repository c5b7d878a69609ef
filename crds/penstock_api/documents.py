"""YAML as Kubernetes reads it, from files that anybody may have written: bounded, and with the line of every value.

Documents are built from the parser's events, without recursion. What JSON does not have, such as `!!binary`, is an
error. Aliases are followed, and counted as if they were written out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from penstock_api.errors import MalformedDocumentError

LARGEST_BYTES = 8 * 1024 * 1024
LARGEST_DEPTH = 64
MOST_NODES = 500_000  # of one file: values and keys, aliases counted as what they stand for
LONGEST_NUMBER = 64  # characters

_TOO_DEEP = f"is nested more than {LARGEST_DEPTH} levels deep; flatten it"

_PREFIX = "tag:yaml.org,2002:"
_EXPONENT = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{0,40})?[eE][-+]?[0-9]{1,4}")  # a number also without a point
_BASE_60 = re.compile(r"[-+]?[0-9_]+(:[0-9_.]+)+")  # numbers to YAML 1.1, text to Kubernetes


class Located(NamedTuple):
    """A document and the line on which it begins."""

    value: Any
    line: int


class Map(dict[str, Any]):
    """A mapping that knows the line of each key."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, int] = {}


class Sequence(list[Any]):
    """A sequence that knows the line of each item."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def line_of(value: object, path: tuple[str | int, ...], line: int) -> int:
    """Return the line of what is at `path` in a document, or of the deepest part of the path that exists."""
    for part in path:
        if isinstance(value, Map) and part in value.lines:
            line, value = value.lines[str(part)], value.get(str(part))
        elif isinstance(value, Sequence) and isinstance(part, int) and part < len(value.lines):
            line, value = value.lines[part], value[part]
        else:
            break
    return line


def load(text: str) -> Iterator[Located]:
    """Yield the documents of a file, empty ones left out. Raises MalformedDocumentError with a line."""
    if len(text) > LARGEST_BYTES:
        raise MalformedDocumentError(f"has {len(text)} characters, at most {LARGEST_BYTES} are read; split the file")
    try:
        yield from _Builder().documents(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"not YAML: {error.problem or error.context}"
        raise MalformedDocumentError(f"{problem}; correct the indentation or quote the value", _line(mark)) from error
    except yaml.YAMLError as error:
        text = str(error).partition("\n")[0]
        raise MalformedDocumentError(f"not YAML: {text}; remove control characters") from error


def _line(mark: Any) -> int:
    return mark.line + 1 if mark else 0


class _Open:
    """A collection whose end has not come yet."""

    __slots__ = ("anchor", "height", "key", "key_line", "line", "merged", "nodes", "value")

    def __init__(self, value: Map | Sequence, anchor: str | None, line: int) -> None:
        self.value = value
        self.line = line
        self.anchor = anchor
        self.nodes = 1  # it and all below it
        self.height = 1  # levels: it and those below it
        self.key: str | None = None  # of a mapping whose next event is the value
        self.key_line = 0
        self.merged: list[Map] = []  # by `<<`


class _Anchor(NamedTuple):
    """What an alias stands for."""

    value: Any
    nodes: int = 1
    height: int = 0


class _Builder:
    """Builds documents from events."""

    def __init__(self) -> None:
        self._nodes = 0  # of all documents so far
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Anchor] = {}
        self._document: Any = None
        self._begins = 0

    def documents(self, events: Iterator[Any]) -> Iterator[Located]:
        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    self._anchors, self._document, self._begins = {}, None, 0
                case yaml.DocumentEndEvent():
                    if self._document is not None:
                        yield Located(self._document, self._begins)
                case yaml.ScalarEvent():
                    self._scalar(event)
                case yaml.AliasEvent():
                    self._alias(event)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self._close()

    def _scalar(self, event: Any) -> None:
        line = _line(event.start_mark)
        value = _construct(event, line)
        part = _Anchor(value)
        if event.anchor:
            self._anchors[event.anchor] = part
        self._count(1, line)
        self._put(part, line, is_merge=event.value == "<<" and event.implicit[0])

    def _alias(self, event: Any) -> None:
        line = _line(event.start_mark)
        if any(opened.anchor == event.anchor for opened in self._stack):
            raise MalformedDocumentError(f"alias *{event.anchor} contains itself; write the value out", line)
        if event.anchor not in self._anchors:
            raise MalformedDocumentError(f"alias *{event.anchor} has no anchor before it; add one", line)
        part = self._anchors[event.anchor]
        self._count(part.nodes, line)
        if len(self._stack) + part.height > LARGEST_DEPTH:
            raise MalformedDocumentError(_TOO_DEEP, line)
        self._put(part, line)

    def _open(self, event: Any) -> None:
        line = _line(event.start_mark)
        value: Map | Sequence = Map() if isinstance(event, yaml.MappingStartEvent) else Sequence()
        if event.tag not in (None, "!", f"{_PREFIX}map" if isinstance(value, Map) else f"{_PREFIX}seq"):
            raise MalformedDocumentError(f"tag {_show_tag(event.tag)} has no meaning in JSON; remove it", line)
        if len(self._stack) == LARGEST_DEPTH:
            raise MalformedDocumentError(_TOO_DEEP, line)
        self._count(1, line)
        self._stack.append(_Open(value, event.anchor, line))
        if len(self._stack) == 1:
            self._begins = line

    def _close(self) -> None:
        opened = self._stack.pop()
        if isinstance(opened.value, Map):
            _merge(opened)
        part = _Anchor(opened.value, opened.nodes, opened.height)
        if opened.anchor:
            self._anchors[opened.anchor] = part
        self._put(part, opened.line)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise MalformedDocumentError(
                f"has more than {MOST_NODES} values, aliases written out; split the file", line
            )

    def _put(self, part: _Anchor, line: int, *, is_merge: bool = False) -> None:
        """Put a value where it belongs: key or value of a mapping, item of a sequence, or the document."""
        if not self._stack:
            self._document, self._begins = part.value, self._begins or line
            return
        parent = self._stack[-1]
        parent.nodes += part.nodes
        parent.height = max(parent.height, part.height + 1)
        if isinstance(parent.value, Sequence):
            parent.value.append(part.value)
            parent.value.lines.append(line)
        elif parent.key is None:
            parent.key, parent.key_line = _key(part.value, line, merge=is_merge), line
        else:
            self._put_in_map(parent, part.value)

    def _put_in_map(self, parent: _Open, value: Any) -> None:
        mapping, key, line = parent.value, parent.key, parent.key_line
        assert isinstance(mapping, Map) and key is not None  # noqa: S101 - by the caller
        parent.key = None
        if key is _MERGE:
            parent.merged += _merged(value, line)
        elif key in mapping:
            raise MalformedDocumentError(f"key {key!r} appears twice; remove one", line)
        else:
            mapping[key] = value
            mapping.lines[key] = line


_MERGE = str("\0<<")  # noqa: UP018 - compared by identity: no key of a file is it


def _key(value: Any, line: int, *, merge: bool) -> str:
    if merge:
        return _MERGE
    if isinstance(value, Map | Sequence):
        raise MalformedDocumentError("a map or list cannot be a key; quote it", line)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _merged(value: Any, line: int) -> list[Map]:
    maps = value if isinstance(value, Sequence) else [value]
    if not all(isinstance(each, Map) for each in maps):
        raise MalformedDocumentError("<< merges maps only; give it an alias of one", line)
    return list(maps)


def _merge(opened: _Open) -> None:
    """Add the keys of `<<`: those that are written out, and of several maps the first, come first."""
    mapping = opened.value
    for other in opened.merged:
        for key, value in other.items():
            if isinstance(mapping, Map) and key not in mapping:
                mapping[key] = value
                mapping.lines[key] = other.lines[key]


def _construct(event: Any, line: int) -> Any:
    """Return the value of a scalar."""
    text, tag = event.value, event.tag
    if tag == "!":
        tag = f"{_PREFIX}str"
    elif tag is None:
        tag = _RESOLVER.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
        if event.implicit[0] and _EXPONENT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
    convert = _SCALARS.get(tag.removeprefix(_PREFIX))
    if convert is None:
        raise MalformedDocumentError(f"tag {_show_tag(tag)} has no meaning in JSON; remove it", line)
    try:
        return convert(text)
    except (ValueError, KeyError) as error:
        kind = tag.removeprefix(_PREFIX)
        raise MalformedDocumentError(f"{text[:40]!r} is no {kind} that JSON has; quote it", line) from error


def _show_tag(tag: str) -> str:
    return f"!!{tag.removeprefix(_PREFIX)}" if tag.startswith(_PREFIX) else tag


def _integer(text: str) -> int | str:
    digits = text.replace("_", "").lower()
    if _BASE_60.fullmatch(text):
        return text
    if len(digits) > LONGEST_NUMBER:
        raise ValueError("too long")
    sign, digits = (-1, digits[1:]) if digits[:1] == "-" else (1, digits.removeprefix("+"))
    base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2])
    if base:
        return sign * int(digits[2:], base)
    return sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)


def _float(text: str) -> float | str:
    if _BASE_60.fullmatch(text):
        return text
    number = float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


_SCALARS: dict[str, Any] = {
    "str": str,
    "null": lambda text: None,
    "bool": lambda text: yaml.SafeLoader.bool_values[text.lower()],
    "int": _integer,
    "float": _float,
    "merge": str,
    "value": str,
}


class _Resolver(yaml.resolver.Resolver):
    """Tags as YAML 1.1, but for dates, which are text to Kubernetes."""


_Resolver.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != f"{_PREFIX}timestamp"]
    for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
}
_RESOLVER = _Resolver()
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster, where it is there
