"""`discover`: directions that can be told, directions that cannot, and what it refuses."""

import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.discovery import Discovery


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parabola(n: int, seed: int) -> Tensor:
    """x -> y as the columns (y, x)."""
    x, noise = normal(2, n, seed=seed)
    return torch.stack((x**2 + noise, x), 1)


def edges(result: Discovery) -> list[tuple[int, int]]:
    return [(i, j) for i, j in result.adjacency.nonzero().tolist()]


def fork_and_collider(n: int, seed: int) -> Tensor:
    """1 -> 0, 1 -> 3, and 0 and 2 -> 4 if five nodes are asked for: smooth functions that no line fits."""
    noise = normal(n, 5, seed=seed)
    x = torch.zeros(n, 5, dtype=torch.float64)
    x[:, 1], x[:, 2] = noise[:, 1], noise[:, 2]
    x[:, 0] = 2 * torch.sin(1.5 * x[:, 1]) + 0.5 * noise[:, 0]
    x[:, 3] = x[:, 1] ** 2 + 0.5 * noise[:, 3]
    x[:, 4] = torch.cos(x[:, 0]) * 2 + torch.cos(2 * x[:, 2]) + 0.5 * noise[:, 4]
    return x


TRUE_EDGES = [(0, 4), (1, 0), (1, 3), (2, 4)]


@pytest.mark.parametrize("seed", range(20))
def test_cause_of_a_parabola(seed: int) -> None:
    result = cvf.discover(parabola(2000, seed))
    assert edges(result) == [(1, 0)]
    assert result.identified
    assert result.margins[1, 0] > 10 * result.standard_errors[1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_linear_gaussian_data_do_not_tell_the_direction(seed: int) -> None:
    x, noise = normal(2, 2000, seed=seed)
    result = cvf.discover(torch.stack((x, 0.8 * x + 0.6 * noise), 1))
    assert len(edges(result)) == 1
    assert not result.identified
    assert not result.identified_edges.any()
    assert "direction not identified" in repr(result)
    assert "not identified: the data do not tell every direction" in repr(result)


@pytest.mark.parametrize("search", ["exhaustive", "orders"])
def test_five_nodes(search) -> None:  # type: ignore[no-untyped-def]
    result = cvf.discover(fork_and_collider(500, seed=0), search=search, features=40)
    assert edges(result) == TRUE_EDGES
    assert result.identified
    assert result.search == search
    if search == "exhaustive":
        assert result.graphs == 29281
        assert result.regressions == 80


def test_more_nodes_than_can_be_searched_exhaustively() -> None:
    X = torch.cat((fork_and_collider(500, seed=0), normal(500, 2, seed=9)), 1)
    result = cvf.discover(X, features=40, restarts=0)
    assert edges(result) == TRUE_EDGES
    assert result.search == "orders"


def test_units_and_variances_do_not_matter() -> None:
    X = fork_and_collider(300, seed=1)[:, :4]
    result = cvf.discover(X, features=30)
    units = torch.tensor([1e-3, 1e6, 1.0, 1e150], dtype=torch.float64)
    scaled = cvf.discover(X * units + units, features=30)
    assert edges(scaled) == edges(result) != []
    assert scaled.score == pytest.approx(result.score, abs=1e-6)


def test_no_edges_where_nothing_depends() -> None:
    result = cvf.discover(normal(500, 4, seed=0), features=40)
    assert edges(result) == []
    assert result.identified


@pytest.mark.parametrize("search", ["exhaustive", "orders"])
def test_one_variable(search) -> None:  # type: ignore[no-untyped-def]
    result = cvf.discover(normal(100, 1, seed=0), search=search)
    assert result.adjacency.tolist() == [[False]]
    assert result.candidates == ()
    assert result.log_likelihood == pytest.approx(-0.5 * math.log(2 * math.pi * math.e), abs=0.02)


def test_penalty_and_score() -> None:
    X = parabola(300, seed=0)
    result = cvf.discover(X, penalty=0.05)
    assert result.score == pytest.approx(result.log_likelihood - 0.05)
    assert cvf.discover(X).penalty == pytest.approx(math.log(300) / 600)
    assert edges(cvf.discover(X, penalty=2.0)) == []


def test_runners_up() -> None:
    result = cvf.discover(fork_and_collider(300, seed=0)[:, :4], features=30, candidates=7)
    assert len(result.candidates) == 7
    scores = [result.score, *(candidate.score for candidate in result.candidates)]
    assert scores == sorted(scores, reverse=True)
    graphs = [result.adjacency, *(candidate.adjacency for candidate in result.candidates)]
    assert len({tuple(graph.flatten().tolist()) for graph in graphs}) == 8
    for candidate in result.candidates:
        assert candidate.difference == pytest.approx(result.score - candidate.score)
        assert candidate.standard_error > 0
    assert cvf.discover(parabola(100, seed=0), candidates=0).candidates == ()
    assert len(cvf.discover(parabola(100, seed=0)).candidates) == 2
    assert repr(result.candidates[0]).endswith(" below the best>")


def test_margins_stand_where_the_edges_are() -> None:
    result = cvf.discover(fork_and_collider(300, seed=0)[:, :4], features=30)
    assert torch.equal(~result.margins.isnan(), result.adjacency)
    assert torch.equal(~result.standard_errors.isnan(), result.adjacency)
    assert (result.margins[result.adjacency] >= 0).all()


def test_more_standard_errors_identify_less() -> None:
    X = parabola(200, seed=0)
    assert cvf.discover(X).identified
    assert not cvf.discover(X, standard_errors=100).identified


def test_graph_with_margins() -> None:
    graph = cvf.discover(parabola(300, seed=0)).to_networkx()
    assert list(graph.edges) == [(1, 0)]
    assert graph.edges[1, 0]["identified"]
    assert graph.edges[1, 0]["margin"] > 0.1


class Frame:
    """As a data frame, of whatever package: something that NumPy takes for an array."""

    def __init__(self, values: Tensor) -> None:
        self._values = values.numpy()

    def __array__(self, dtype=None, copy=None):  # type: ignore[no-untyped-def]
        return self._values.astype(dtype) if dtype else self._values


def test_arrays_data_frames_and_integers() -> None:
    X = (10 * parabola(200, seed=0)).round()
    expected = cvf.discover(X, features=20)
    for other in (X.numpy(), X.int(), X.int().numpy(), Frame(X), X.tolist(), X.requires_grad_()):
        assert cvf.discover(other, features=20).score == expected.score


def test_the_seed_decides() -> None:
    X = parabola(200, seed=0)
    assert cvf.discover(X, seed=1).score == cvf.discover(X, seed=1).score
    assert cvf.discover(X, seed=1).score != cvf.discover(X, seed=2).score


def test_the_callers_generator_and_data_stay_as_they_are() -> None:
    X = parabola(100, seed=0)
    before, state = X.clone(), torch.get_rng_state()
    cvf.discover(X)
    assert torch.equal(X, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_silent_without_a_terminal_and_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cvf.discover(parabola(100, seed=0))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    cvf.discover(parabola(100, seed=0))
    assert capsys.readouterr() == ("", "")


def with_column(column: Tensor | float) -> Tensor:
    X = normal(50, 3, seed=0)
    X[:, 1] = column
    return X


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            torch.zeros(50),
            r"X must have shape \(n, d\) with d >= 1, got \(50,\): if it is one column, pass X\[:, None\]",
        ),
        (torch.zeros(50, 0), r"X must have shape \(n, d\) with d >= 1, got \(50, 0\)"),
        (normal(29, 2, seed=0), "X must have at least 30 samples, got 29$"),
        (normal(2, 50, seed=0), r"got 2 of 50 columns: X is \(n, d\), samples in rows: transpose it\?"),
        (list(normal(2, 50, seed=0)), r"got 2 of 50 columns: X is \(n, d\), samples in rows: transpose it\?"),
        (with_column(torch.nan), r"X must be finite, got NaN or infinity in the columns \[1\]"),
        (with_column(torch.inf), r"X must be finite, got NaN or infinity in the columns \[1\]"),
        (with_column(0.1), r"X has constant columns, \[1\]"),
        (with_column(normal(50, 3, seed=0)[:, 2]), "X has the same column twice, up to its units: 1 and 2"),
        (
            with_column(3 - 7 * normal(50, 3, seed=0)[:, 0]),
            "X has the same column twice, up to its units: 0 and 1",
        ),
        (
            with_column(normal(50, 3, seed=0)[:, [0, 2]].sum(1)),
            r"X has columns that are linear functions of columns before them, without noise: \[2\]",
        ),
    ],
)
def test_data_that_it_refuses(X: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cvf.discover(X)


def test_complex_data() -> None:
    for X in (np.zeros((50, 2), dtype=complex), torch.zeros(50, 2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=rf"X must be real, got {X.dtype}"):
            cvf.discover(X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -0.1}, "penalty must be at least 0, got -0.1"),
        ({"penalty": math.nan}, "penalty must be at least 0, got nan"),
        ({"max_parents": -1}, "max_parents must be at least 0, got -1"),
        ({"candidates": -1}, "candidates must be at least 0, got -1"),
        ({"standard_errors": -1.0}, r"standard_errors must be at least 0, got -1\.0"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"restarts": -1}, "restarts must be at least 0, got -1"),
        ({"search": "all"}, 'search must be "auto", "exhaustive" or "orders", got \'all\''),
    ],
)
def test_arguments_out_of_range(arguments, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        cvf.discover(parabola(50, seed=0), **arguments)


@pytest.mark.parametrize("name", ["max_parents", "candidates", "features", "restarts", "seed"])
@pytest.mark.parametrize("value", [2.5, "2"])
def test_numbers_of_things_are_integers(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be an integer, got {value!r}"):
        cvf.discover(parabola(50, seed=0), **{name: value})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^penalty must be a number, got '1'"):
        cvf.discover(parabola(50, seed=0), penalty="1")  # type: ignore[arg-type]


def test_integers_of_numpy() -> None:
    X = parabola(50, seed=0)
    found = cvf.discover(X, features=np.int64(20), seed=np.int32(1))  # type: ignore[arg-type]
    assert found.score == cvf.discover(X, features=20, seed=1).score


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({"x": [0.0] * 50}, r"got dict: pass pandas\.DataFrame\(X\), .* or numpy\.column_stack\(list\(X\.values"),
        ("table.csv", r"got str: read the file first, as by pandas\.read_csv"),
        (b"1,2", "got bytes: read the file first"),
    ],
)
def test_what_is_no_table(X: object, message: str) -> None:
    with pytest.raises(TypeError, match=r"^X must be a table of shape \(n, d\), " + message):
        cvf.discover(X)  # type: ignore[arg-type]


def test_columns_of_two_values_are_warned_of() -> None:
    X = parabola(100, seed=0)
    both = torch.cat((X, (X[:, :1] > 1).double(), 3 - 2 * (X[:, 1:] > 0.2).double()), 1)
    with pytest.warns(
        UserWarning, match=r"columns of only two values, \[2, 3\]: discrete .*; leave them out"
    ) as seen:
        cvf.discover(both, features=20)
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match=r"two values, \[0\]"):
        cvf.discover(normal(50, 1, seed=0) > 0)


def test_how_it_is_printed() -> None:
    single = cvf.discover(normal(100, 1, seed=0))
    assert str(single).startswith("Discovery: 1 node, 0 edges, n = 100, score -")
    assert str(single).endswith("the best of 1 graph (exhaustive)")
    result = cvf.discover(parabola(300, seed=0))
    assert str(result).startswith("Discovery: 2 nodes, 1 edge, n = 300, ")
    graph = r"<(0 -> 1|no edges) \| [0-9.e-]+ ± [0-9.e-]+ below the best>"
    assert re.fullmatch(rf"\({graph}, {graph}\)", str(result.candidates))


def test_too_many_variables_for_an_exhaustive_search() -> None:
    with pytest.raises(ValueError, match='search="exhaustive" takes at most 5 variables, got 6'):
        cvf.discover(normal(50, 6, seed=0), search="exhaustive")


@pytest.mark.parametrize("search", ["exhaustive", "orders"])
def test_another_default_device(search) -> None:  # type: ignore[no-untyped-def]
    """The work is done on the CPU, wherever new tensors go otherwise; "meta" stands in for a GPU."""
    X = fork_and_collider(100, seed=0)[:, :4]
    expected = cvf.discover(X, search=search, features=20)
    torch.set_default_device("meta")
    try:
        found = cvf.discover(X, search=search, features=20)
    finally:
        torch.set_default_device(None)
    assert repr(found) == repr(expected)
    torch.testing.assert_close(found.margins, expected.margins, rtol=0, atol=0, equal_nan=True)
    assert found.candidates[0].adjacency.device.type == "cpu"
