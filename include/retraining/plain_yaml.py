"""Reads YAML as those who write it mean it, and bounds what it can cost.

YAML 1.1 takes ``NO`` for false, ``1e-3`` for text, ``010`` for 8 and ``1:30`` for 90. Here, as in
YAML 1.2, only ``true`` and ``false`` are booleans, ``1e-3`` is a number, and ``1:30`` is text. A
whole number with a leading zero is an error, because both readings of it are guesses.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_DEPTH = 50
# aliases, indents, lists in lists, explicit keys: without them a text is less than MAX_DEPTH deep
_NOT_PLAIN = re.compile(r"&|- +-|^ {12}|^[ -]*\? ", re.MULTILINE)
MAX_VALUES = 200_000  # with each alias written out

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LEADING_ZERO = "!leading-zero"
_TEXT = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_FLOAT = "tag:yaml.org,2002:float"
_RULES = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_LEADING_ZERO, r"[-+]?0o?[0-9_]+", "-+0"),
    ("tag:yaml.org,2002:int", r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    (_FLOAT, r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
)
_OTHER_RULES = {
    first: [(tag, rule) for tag, rule in rules if tag not in {one for one, _, _ in _RULES}]
    for first, rules in _Base.yaml_implicit_resolvers.items()
}


class _Loader(_Base):
    """A SafeLoader that also refuses a key that appears twice: YAML silently keeps the last.

    What YAML takes for a date but is none (``2013-13-45``) is an error of that line.
    """

    yaml_implicit_resolvers = _OTHER_RULES

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == _TEXT and isinstance(
            node, yaml.ScalarNode
        ):  # most of a model file, and there is nothing to build
            return node.value
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise _error(f"{node.value!r}: {error}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error("a key must be one word", key.start_mark)
            if key.value in seen:
                raise _error(f"key {key.value!r} appears twice", key.start_mark)
            seen.add(key.value)
        if any(key.tag == _MERGE for key, _ in node.value):
            found: dict[Any, Any] = super().construct_mapping(node, deep)
            return found
        build = self.construct_object
        return {build(key, deep): build(value, deep) for key, value in node.value}

    def construct_whole_mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        """Build it at once: PyYAML puts what is inside off, for structures that hold themselves."""
        return self.construct_mapping(node, deep=True)

    def construct_whole_list(self, node: yaml.SequenceNode) -> list[Any]:
        """Build it at once."""
        return [self.construct_object(item, deep=True) for item in node.value]

    def construct_leading_zero(self, node: yaml.ScalarNode) -> Any:
        """Refuse it."""
        raise _error(
            f"{node.value} begins with a zero, which YAML may take for octal; write a whole number "
            f"without it, or text in quotes: {node.value!r}",
            node.start_mark,
        )


for _tag, _rule, _first in _RULES:
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_rule})$"), list(_first))
_Loader.add_constructor(_LEADING_ZERO, _Loader.construct_leading_zero)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_whole_mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.construct_whole_list)


def read(text: str) -> Any:
    """Give what a text of one YAML document holds.

    Raises
    ------
    yaml.YAMLError
        It is no YAML, a key appears twice, a number begins with a zero, it is nested deeper than
        `MAX_DEPTH`, or holds more than `MAX_VALUES` values.
    """
    if _NOT_PLAIN.search(text) or text.count("[") + text.count("{") > MAX_DEPTH // 2:
        _bound(text)
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with more checks


def line_of(text: str, place: tuple[str | int, ...]) -> int:
    r"""Follow a place through a YAML text as far as it goes; give the 1-based line.

    A step is a key of a mapping, a position in a list, or a value in one.

    >>> line_of("a:\n  b: 1\n  c:\n  - x\n  - y\n", ("a", "c", "y"))
    5
    """
    node = yaml.compose(text, Loader=_Loader)
    line = node.start_mark.line + 1 if node else 1
    for part in place:
        below = None
        if isinstance(node, yaml.MappingNode):
            below = next(((k, v) for k, v in node.value if k.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            below = next(((v, v) for n, v in items if part in (n, v.value)), None)
        if below is None:
            break
        line, node = below[0].start_mark.line + 1, below[1]
    return line


def _bound(text: str) -> None:
    """Refuse what is too deep, or too much once its aliases are written out, before it is built."""
    sizes: dict[str, int] = {}  # by anchor
    opened: list[tuple[str | None, int]] = []  # anchor, and what was counted before it
    count = 0
    for event in yaml.parse(text, Loader=_Base):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, count))
            anchor = None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            size = count - before
            count = before
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise _error(f"*{anchor} stands for nothing before it", event.start_mark)
            size = sizes[anchor]
        if anchor:
            sizes[anchor] = size
        count += size
        if len(opened) > MAX_DEPTH or count > MAX_VALUES:
            what = (
                f"nested more than {MAX_DEPTH} deep"
                if len(opened) > MAX_DEPTH
                else (f"holds more than {MAX_VALUES:,} values, with each alias written out")
            )
            raise _error(what, event.start_mark)


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
