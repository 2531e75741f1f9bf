"""Counts that are kept in a file, and made again where what they are counts of has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from h100 import Count


class Kept:
    """The counts of one kind of kernels, by name, in a file that has others' too."""

    def __init__(self, path: Path, kind: str, fingerprint: str) -> None:
        self.path, self.kind = path, kind
        found = self._read().get(kind, {})
        self.counts_by_name: dict[str, Any] = found.get("counts", {}) if found.get("of") == fingerprint else {}
        self.fingerprint = fingerprint

    def get(self, name: str, count: Callable[[], Any]) -> Any:
        """What `count` gives, as JSON has it."""
        if name not in self.counts_by_name:
            self.counts_by_name[name] = json.loads(json.dumps(count()))
            print(self.kind, name, self.counts_by_name[name], flush=True)
            self._write()
        return self.counts_by_name[name]

    def counts(self, name: str, count: Callable[[], list[Count]]) -> list[Count]:
        return [Count(*fields) for fields in self.get(name, count)]

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        return found

    def _write(self) -> None:
        found = self._read() | {self.kind: {"of": self.fingerprint, "counts": self.counts_by_name}}
        lines = []
        for kind, held in sorted(found.items()):
            counts = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in held["counts"].items())
            lines.append(f'{json.dumps(kind)}: {{"of": {json.dumps(held["of"])}, "counts": {{\n{counts}\n}}}}')
        self.path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
