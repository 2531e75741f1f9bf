"""Whether what was compiled is of the sources as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def fingerprint(paths: Iterable[Path], *others: object) -> str:
    """Of the contents of files, and of what else decides what they compile to."""
    digest = hashlib.sha256(repr(others).encode())
    for path in sorted(paths):
        digest.update(path.read_bytes())
    return digest.hexdigest()
