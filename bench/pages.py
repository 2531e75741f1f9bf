"""Tables in pages of docs/: each stands between <!-- name --> and <!-- end of name -->; a script fills it in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def fill(page: Path, blocks: Mapping[str, list[str]]) -> None:
    """Replace the blocks, name -> lines, that the page has a place for."""
    text = page.read_text()
    for name, lines in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin in text:
            before, rest = text.split(begin)
            text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1]
    page.write_text(text)
