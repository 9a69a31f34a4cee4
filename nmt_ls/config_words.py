"""What the settings are called, what they may be, and what is wrong with a value, in words."""

import dataclasses
import difflib
import functools
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from nmt_ls.config import Config


def describe_settings() -> list[tuple[str, str, str, str]]:
    """(dotted key, type, default, help) of every setting, in the order of `nmt_ls.config`.

    The settings of a corpus stand once, under `data.train`.
    """
    return list(_described(Config, Config(), ""))


def _described(kind: Any, defaults: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, hint in _fields(kind).items():
        default = getattr(defaults, name)
        text = " ".join((kind.__pydantic_fields__[name].description or "").split())
        key = prefix + name
        if dataclasses.is_dataclass(hint):
            yield from _described(hint, default, f"{key}.")
        elif name in ("validation", "tests"):
            key += ".NAME" if name == "tests" else ""
            yield key, "a section", "none", f"{text} Settings as under data.train."
        else:
            shown = yaml.safe_dump(
                json.loads(json.dumps(default)), default_flow_style=True, allow_unicode=True
            )
            shown = shown.removesuffix("\n").removesuffix("\n...")
            yield key, _type_words(hint, limits=True), shown, text


def explain(found: Mapping[str, Any], raw: dict[str, Any]) -> tuple[str, str]:
    """The dotted key of a pydantic error, and one line about it."""
    parts: list[str] = []
    kind: Any = Config
    for part in found["loc"]:
        kind = _core(kind)
        if dataclasses.is_dataclass(kind):
            parts.append(str(part))
            kind = _fields(kind).get(str(part))
        elif typing.get_origin(kind) is dict:
            parts.append(str(part))
            kind = typing.get_args(kind)[1]
        # What follows names the member of a union or the place in a list.
    key = ".".join(parts)
    value = _at(raw, parts)
    context = found.get("ctx", {})
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return key, _unknown(parts)
    named = f"{key}={shown(value)}"
    if found["type"] == "literal_error":
        choices = [str(choice) for choice in typing.get_args(_core(kind))]
        if len(choices) == 1:
            return key, f"{named}: must be {choices[0]}"
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return key, f"{named}: must be one of {', '.join(choices)}{hint}"
    if dataclasses.is_dataclass(_core(kind)):
        return key, f"{named}: must be a section of settings"
    limits = {
        "greater_than": ("more than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
        "multiple_of": ("a multiple of", "multiple_of"),
    }
    if found["type"] in limits:
        words, name = limits[found["type"]]
        limit = context[name]
        number = f"{limit:g}" if isinstance(limit, float) else f"{limit}"
        return key, f"{named}: must be {words} {number}"
    if found["type"] == "finite_number":
        return key, f"{named}: must be a finite number"
    return key, f"{named}: must be {_type_words(kind)}"


def _unknown(parts: list[str]) -> str:
    section = ".".join(parts[:-1])
    siblings = _names_in(parts[:-1])
    near = difflib.get_close_matches(parts[-1], siblings, 1, cutoff=0.6)
    if near:
        hint = f"; did you mean {'.'.join([*parts[:-1], near[0]])}?"
    elif elsewhere := [key for key in _all_keys() if key.rpartition(".")[2] == parts[-1]]:
        hint = f"; did you mean {elsewhere[0]}?"
    else:
        hint = f"; there are {', '.join(siblings)}"
    where = f"{section} has no setting" if section else "there is no setting"
    return f"unknown key {'.'.join(parts)}: {where} {parts[-1]!r}{hint}"


def _names_in(parts: Sequence[str]) -> list[str]:
    kind: Any = Config
    for part in parts:
        kind = _core(kind)
        kind = (
            _fields(kind).get(part) if dataclasses.is_dataclass(kind) else typing.get_args(kind)[1]
        )
    return list(_fields(_core(kind)))


@functools.cache
def _all_keys() -> tuple[str, ...]:
    return tuple(row[0] for row in describe_settings())


def _at(raw: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if not isinstance(raw, Mapping) or part not in raw:
            return None
        raw = raw[part]
    return raw


def shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str | bool | int | float):
        text = value if isinstance(value, str) and value else json.dumps(value)
        text = " ".join(text.split()) if text.strip() else repr(value)
    else:
        text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _core(kind: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if typing.get_origin(kind) is typing.Annotated:
        return _core(typing.get_args(kind)[0])
    if isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind):
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return _core(inner[0]) if len(inner) == 1 else kind
    return kind


def _fields(kind: Any) -> dict[str, Any]:
    return _hints(kind)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _limits(kind: Any) -> str:
    words = []
    for field in typing.get_args(kind)[1:]:
        for rule in field.metadata:
            for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
                if (limit := getattr(rule, name, None)) is not None:
                    words.append(f"{sign} {limit:g}" if limit < 1e5 else f"{sign} {limit:,}")
            if (factor := getattr(rule, "multiple_of", None)) is not None:
                words.append(f"multiple of {factor}")
    return ", ".join(words)


def _type_words(kind: Any, *, limits: bool = False) -> str:
    """The type in words: "a whole number"."""
    suffix = ""
    if limits and typing.get_origin(kind) is typing.Annotated and (found := _limits(kind)):
        suffix = f" {found}"
    optional = isinstance(kind, types.UnionType) and type(None) in typing.get_args(kind)
    core = _core(kind)
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    simple[type(None)] = "null"
    if core in simple:
        return simple[core] + suffix
    if typing.get_origin(core) is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(core))
    if typing.get_origin(core) is tuple:
        return f"a list, each {_type_words(typing.get_args(core)[0], limits=limits)}"
    if isinstance(core, types.UnionType):
        return " or ".join(_type_words(arg, limits=limits) for arg in typing.get_args(core))
    if typing.get_origin(core) is dict:
        inner = typing.get_args(core)[1]
        return "sections by name" if dataclasses.is_dataclass(inner) else "lists by setting"
    return "a section" + (" or null" if optional else "")
