"""The drawing of a temporal graph."""

import sys
from pathlib import Path

import networkx
import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread

from causalvae_fast import LinearMechanism, SEMPrior, temporal_mask
from causalvae_fast.figures import _canvas, draw_graph

PNG = b"\x89PNG\r\n\x1a\n"


def graph(d: int, *edges: tuple[int, int, float | None]) -> networkx.DiGraph:
    result = networkx.DiGraph()
    result.add_nodes_from(range(d))
    for parent, child, coefficient in edges:
        attributes = {} if coefficient is None else {"coefficient": coefficient}
        result.add_edge(parent, child, probability=1.0, **attributes)
    return result


def count(path: Path, colour: str) -> int:
    """Number of pixels of exactly this colour."""
    pixels = np.round(255 * imread(path)[..., :3])
    return int(np.all(pixels == np.round(255 * np.array(colors.to_rgb(colour))), axis=-1).sum())


def test_writes_a_png_and_returns_its_path(tmp_path: Path) -> None:
    path = draw_graph(graph(4, (0, 2, 1.0)), 2, 2, tmp_path / "new" / "graph.png")
    assert path == tmp_path / "new" / "graph.png"
    assert path.read_bytes().startswith(PNG)
    assert isinstance(draw_graph(graph(1), 1, 1, str(tmp_path / "g.png")), Path)


def test_the_graph_of_a_prior(tmp_path: Path) -> None:
    prior = SEMPrior(LinearMechanism(12, temporal_mask(3, 4), init_std=1.0))
    path = draw_graph(prior.to_networkx(), 3, 4, tmp_path / "g.png")
    assert path.stat().st_size > 10_000


def test_larger_graphs_are_larger_figures(tmp_path: Path) -> None:
    def size(frames: int, latents: int) -> tuple[int, int]:
        path = draw_graph(graph(frames * latents), frames, latents, tmp_path / "g.png")
        height, width = imread(path).shape[:2]
        return width, height

    assert size(4, 2)[0] > size(3, 2)[0]
    assert size(3, 3)[1] > size(3, 2)[1]


def test_sign_sets_the_colour(tmp_path: Path) -> None:
    positive = draw_graph(graph(2, (0, 1, 2.0)), 2, 1, tmp_path / "p.png")
    negative = draw_graph(graph(2, (0, 1, -2.0)), 2, 1, tmp_path / "n.png")
    # The legend shows either colour, the edge only its own.
    assert count(positive, _canvas.BLUE) > count(negative, _canvas.BLUE)
    assert count(positive, _canvas.VERMILLION) < count(negative, _canvas.VERMILLION)


def test_an_edge_without_coefficient_has_no_sign(tmp_path: Path) -> None:
    path = draw_graph(graph(2, (0, 1, None)), 2, 1, tmp_path / "g.png")
    assert count(path, _canvas.BLUE) == count(path, _canvas.VERMILLION) == 0


def test_isolated_nodes_are_grey(tmp_path: Path) -> None:
    joined = draw_graph(graph(2, (0, 1, None)), 2, 1, tmp_path / "joined.png")
    isolated = draw_graph(graph(2), 2, 1, tmp_path / "isolated.png")
    # A few pixels of any grey come from the smoothed edges of black letters.
    assert count(isolated, _canvas.PALE_GREY) > 100 > 10 > count(joined, _canvas.PALE_GREY)
    assert count(isolated, _canvas.INK) < count(joined, _canvas.INK)


def test_an_unlikely_edge_is_paler(tmp_path: Path) -> None:
    likely, unlikely = graph(2, (0, 1, 1.0)), graph(2, (0, 1, 1.0))
    unlikely.edges[0, 1]["probability"] = 0.5
    strong = draw_graph(likely, 2, 1, tmp_path / "s.png")
    weak = draw_graph(unlikely, 2, 1, tmp_path / "w.png")
    assert count(strong, _canvas.BLUE) > count(weak, _canvas.BLUE)


def test_leaves_pyplot_alone(tmp_path: Path) -> None:
    import matplotlib
    from matplotlib import pyplot

    settings = dict(matplotlib.rcParams)
    draw_graph(graph(2), 2, 1, tmp_path / "g.png")
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize(
    ("drawn", "frames", "latents", "message"),
    [
        (graph(4), 0, 4, "frames must be at least 1, got 0"),
        (graph(4), 4, 0, "latents must be at least 1, got 0"),
        (graph(4), 2, 3, r"graph must have the nodes 0 to 5 \(frames \* latents = 6\), got \[0, 1, 2, 3\]"),
        (networkx.relabel_nodes(graph(2), {0: "x"}), 2, 1, "graph must have the nodes 0 to 1"),
        (graph(2, (1, 1, 1.0)), 2, 1, "graph must have no self-loop"),
    ],
)
def test_errors_name_the_argument(
    drawn: networkx.DiGraph, frames: int, latents: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_graph(drawn, frames, latents, tmp_path / "g.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'causalvae_fast\[plots\]'"):
        draw_graph(graph(1), 1, 1, tmp_path / "g.png")
