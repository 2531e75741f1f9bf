"""Tables that scripts fill into pages."""

from pathlib import Path

from pages import fill


def test_blocks_are_replaced_and_the_rest_is_left(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- one -->\nold\n<!-- end of one -->\ntext\n<!-- two -->\n<!-- end of two -->\nend\n")
    fill(page, {"one": ["| a |", "| b |"], "elsewhere": ["c"]})
    assert page.read_text() == (
        "# A\n<!-- one -->\n| a |\n| b |\n<!-- end of one -->\ntext\n<!-- two -->\n<!-- end of two -->\nend\n"
    )
