"""The entries of a configuration by their dotted names, such as `epochs` and `model.hidden`."""

from __future__ import annotations

import dataclasses
from typing import Any

# A run folder may be moved, and its training may go on where there is another device: neither is part of what was
# set. All else is, the number of epochs too: rates, penalties and openings follow the fraction of the steps that
# is done, so that with more epochs the steps behind would have been other ones.
MAY_DIFFER = ("run", "device")


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
