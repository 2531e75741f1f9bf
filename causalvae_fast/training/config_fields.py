"""The entries of a configuration by their dotted names, such as `epochs` and `model.hidden`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from causalvae_fast.training.config_errors import ConfigError

Config = TypeVar("Config")

# A run folder and the user's data may be moved (a fingerprint says whether these are the same), and a training
# may go on where there is another device: none of these is part of what was set. All else is, the number of
# epochs too: rates, penalties and openings follow the fraction of the steps that is done, so that with more
# epochs the steps behind would have been other ones.
MAY_DIFFER = ("run", "device", "data")


def field_values(config: Any) -> dict[str, Any]:
    """Dotted name -> value of each entry of a configuration, those of nested ones included."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values |= {f"{field.name}.{name}": entry for name, entry in field_values(value).items()}
        else:
            values[field.name] = value
    return values


def differing(config: Any, stored: Any) -> list[str]:
    """In words, the entries in which a configuration is not the stored one of its run, without `MAY_DIFFER`."""
    asked, has = field_values(config), field_values(stored)
    return [
        f"{name} = {value} (the run has {has[name]})"
        for name, value in asked.items()
        if name not in MAY_DIFFER and value != has[name]
    ]


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with other values of some entries, given by their dotted names.

    Raises:
        ConfigError, ValueError: if the configuration refuses them.
    """
    own = {name: value for name, value in values.items() if "." not in name}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if "." in name:
            part, rest = name.split(".", 1)
            nested.setdefault(part, {})[rest] = value
    own |= {part: with_values(getattr(config, part), entries) for part, entries in nested.items()}
    changed: Config = dataclasses.replace(config, **own)  # type: ignore[type-var]
    return changed


def parse_value(config: Any, name: str, text: str) -> Any:
    """The value that a text stands for, of the entry with a dotted name.

    Raises:
        ConfigError: if there is no such entry, with names that are near, or the text is no value of its kind.
    """
    known = field_values(config)
    if name not in known:
        tails = [entry for entry in known if entry.split(".")[-1] == name]
        near = tails or difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise ConfigError(f"{name} is no entry of the configuration: {hint}")
    kind = _kind(type(config), name)
    options = set(get_args(kind)) if isinstance(kind, UnionType) else {kind}
    if NoneType in options and text.lower() == "none":
        return None
    parsers = [_PARSERS[option] for option in options & _PARSERS.keys()]
    if len(parsers) != 1:
        raise ConfigError(f"{name} takes values of a kind that a text cannot give: {kind}")
    try:
        return parsers[0](text)
    except (ValueError, KeyError):
        raise ConfigError(f"{name} must be {getattr(kind, '__name__', kind)}, got {text!r}") from None


def _kind(cls: type[Any], name: str) -> Any:
    """The type of an entry, as it is annotated."""
    part, _, rest = name.partition(".")
    kind = get_type_hints(cls)[part]
    return _kind(kind, rest) if rest else kind


_PARSERS: dict[type[Any], Callable[[str], Any]] = {
    int: int,
    float: float,
    str: str,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    Path: lambda text: Path(text).resolve(),
}
