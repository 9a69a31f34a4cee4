"""YAML as configurations are written in it: safe, no key twice, scalars as people expect them."""

import os
import re
from pathlib import Path
from typing import Any

import yaml

from nmt_ls.config_words import shown
from nmt_ls.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML's safe types, no key twice, and the scalars people expect.

    `1e-3` is a number, `010` ten, `1:30` text and `no` a language code, as in YAML 1.2.
    """

    def __init__(self, stream: str):
        super().__init__(stream)
        self._merged: set[yaml.MappingNode] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Once: it puts what `<<` brings among the node's own keys, which may then stand twice, and
        # a node that another one merges comes here before it is constructed itself.
        if node not in self._merged:
            self._merged.add(node)
            self._refuse_keys_that_stand_twice(node)
            super().flatten_mapping(node)

    def _refuse_keys_that_stand_twice(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str | int | float | bool):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not a plain name", key.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands twice", key.start_mark
                )
            seen.add(name)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, 16 if "x" in text else 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":float", ":bool", ":int"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes text that this loader or YAML 1.1's would take for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()),
        *_Loader.yaml_implicit_resolvers.get(first, ()),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dumped(tree: dict[str, Any]) -> str:
    """A tree as YAML, in the order of its keys."""
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    # PyYAML writes some line separators (U+0085) as they are, and reads them as line ends.
    if yaml.safe_load(text) != tree:
        text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=False)
    return text


def read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The keys and values of a YAML file; none of an empty one.

    Raises:
        UserError: it cannot be read, is not UTF-8, no YAML, or holds something else.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start + 1})") from None
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    raw = _parsed(text, str(path))
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a configuration (keys and values), but {shown(raw)}")
    return raw


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise UserError(f"{where}{line}: {problem}") from None


def parsed_value(text: str, where: str) -> Any:
    """The value of an override, in YAML.

    Args:
        text: What stands behind the equals sign.
        where: What errors begin with.

    Raises:
        UserError: not YAML.
    """
    try:
        value = _parsed(text, where)
    except UserError:
        # `joiner=@@ ` is no YAML, and quoting it twice for the shell is no fun.
        if not text or text.lstrip()[0] not in "@`%":
            raise
        value = text
    return "" if value is None and not text.strip() else value
