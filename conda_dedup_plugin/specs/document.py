"""Text and YAML that anybody may have written, with the line of whatever is wrong."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from ..errors import UsageError
from ..files import read_regular

#: No file of specs is bigger: lock files of large projects have a few MB.
MOST_BYTES = 16 << 20
_MEND = "Correct it there, or have the file written again by the tool that wrote it."
_ANOTHER = "Name another file, or an environment by its name or prefix."
_NULL = "tag:yaml.org,2002:null"


def read_text(path: str) -> str:
    """Return a text file. UsageError: it cannot be read, is none, or is too big."""
    try:
        content = read_regular(path, MOST_BYTES, follow=True, whole=True)
    except ValueError as exc:
        raise UsageError(f"{path!r} is no path of a file.", _ANOTHER) from exc
    except OSError as exc:
        raise UsageError(f"{path!r} cannot be read: {exc.strerror}.", _ANOTHER) from exc
    try:
        text = content.decode("utf-8-sig")
        at = text.find("\0")
    except UnicodeDecodeError as exc:
        text, at = content[: exc.start].decode("utf-8"), exc.start
    if at >= 0:
        raise wrong(path, content[:at].count(b"\n") + 1 if "\0" in text else text.count("\n") + 1,
                    "this is no text")  # fmt: skip
    return text


def wrong(path: str, line: int, what: str, hint: str = "") -> UsageError:
    """The error that says where a file is broken; ``line`` counts from 1."""
    return UsageError(f"{path!r}, line {line}: {what}.", hint or _MEND)


class Value(Struct, frozen=True):
    """One value of a YAML document, whatever its type; every scalar is the text that stands there."""

    path: str
    node: Any
    what: str = "the document"

    def wrong(self, what: str, hint: str = "") -> UsageError:
        """The error that something is wrong with this value."""
        return wrong(self.path, self.node.start_mark.line + 1, what, hint)

    def mapping(self) -> dict[str, Value]:
        """Return the values by key. UsageError: it is no mapping."""
        if not isinstance(self.node, MappingNode):
            raise self.wrong(f"{self.what} is no mapping of keys to values")
        found = {}
        for key, node in self.node.value:
            if not isinstance(key, ScalarNode):
                raise Value(self.path, key).wrong(f"a key of {self.what} is no text")
            found[key.value] = Value(self.path, node, repr(key.value))
        return found

    def items(self) -> list[Value]:
        """Return the values of a list, none of a null. UsageError: it is no list."""
        if self.is_null:
            return []
        if not isinstance(self.node, SequenceNode):
            raise self.wrong(f"{self.what} is no list")
        return [Value(self.path, node, f"an entry of {self.what}") for node in self.node.value]

    def text(self) -> str:
        """Return a scalar as it is written, "" for a null. UsageError: it is none."""
        if not isinstance(self.node, ScalarNode):
            raise self.wrong(f"{self.what} is no text")
        return "" if self.is_null else str(self.node.value)

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.node, MappingNode)

    @property
    def is_null(self) -> bool:
        """Whether nothing stands there."""
        return isinstance(self.node, ScalarNode) and self.node.tag == _NULL


def parse(path: str, text: str) -> Value:
    """Return the first document of a YAML text. UsageError: it is no YAML, or empty."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise wrong(
            path, mark.line + 1 if mark else 1, f"this is no YAML: {exc.problem or exc.context}"
        ) from exc
    except RecursionError as exc:
        raise UsageError(f"{path!r} is nested too deeply.", _MEND) from exc
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError) as exc:
        said = " ".join(str(exc).split())
        raise UsageError(f"{path!r} is no YAML: {said}.", _MEND) from exc
    if node is None:
        raise UsageError(f"{path!r} is empty.", _ANOTHER)
    return Value(path, node)


def text_of(entry: dict[str, Value], key: str) -> str:
    """Return the text under a key, "" where there is none."""
    return entry[key].text() if key in entry else ""
