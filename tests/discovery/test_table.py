"""Data frames: the names of their columns are kept, in what `discover` gives and in what it refuses."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.discovery.table import as_table


class Frame:
    """As a data frame, of whatever package: columns with names, which NumPy takes for an array."""

    def __init__(self, **columns: Any) -> None:
        self.columns = list(columns)
        self._values = [np.asarray(column) for column in columns.values()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.stack([values.astype(dtype or object) for values in self._values], axis=1)


class ArrowTable(Frame):
    """As pyarrow has it: the names stand apart, and `columns` are the data."""

    def __init__(self, **columns: Any) -> None:
        super().__init__(**columns)
        self.column_names, self.columns = self.columns, self._values


def normal(n: int, seed: int) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parabola(n: int = 500) -> dict[str, Tensor]:
    """distance -> time, and colour beside them."""
    distance = normal(n, 0)
    return {"time": distance**2 + normal(n, 1), "distance": distance, "colour": normal(n, 2)}


def as_tensor(columns: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(columns.values()), 1)


@pytest.mark.parametrize("frame", [Frame, ArrowTable])
def test_names_are_kept(frame: type[Frame]) -> None:
    result = cvf.discover(frame(**parabola()), features=30)
    assert result.names == ("time", "distance", "colour")
    assert str(result).splitlines()[1].startswith("  distance -> time  turned round it scores ")
    assert all(candidate.names == result.names for candidate in result.candidates)
    assert repr(result.candidates[0]).startswith("<distance -> time, ")
    assert list(result.to_networkx().nodes) == ["time", "distance", "colour"]
    assert list(result.to_networkx().edges) == [("distance", "time")]


def test_names_of_directions_that_are_not_told() -> None:
    x = normal(500, 0)
    result = cvf.discover(Frame(a=x, b=0.8 * x + 0.6 * normal(500, 1)), features=30)
    parent, child = ("ab"[k] for k in result.adjacency.nonzero()[0].tolist())
    assert f"{parent} -- {child}  direction not identified: {child} -> {parent} scores" in str(result)


def test_the_same_result_without_names() -> None:
    named, plain = (cvf.discover(X, features=30) for X in (Frame(**parabola()), as_tensor(parabola())))
    assert plain.names is None
    assert plain.score == named.score
    assert str(named) == str(plain).replace("1 -> 0", "distance -> time")
    assert list(plain.to_networkx().edges) == [(1, 0)]


def test_columns_that_are_not_of_this_table() -> None:
    X = Frame(**parabola(100))
    X.columns = ["a", "b"]
    assert cvf.discover(X, features=20).names is None


def replaced(**columns: Any) -> dict[str, Any]:
    return {**parabola(50), **columns}


def gap(value: Any, at: int) -> list[Any]:
    """Fifty numbers, with something else at one place."""
    column: list[Any] = normal(50, 3).tolist()
    column[at] = value
    return column


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (replaced(colour=["red", "blue"] * 25), "column 'colour' has 'red': convert numbers that are written as"),
        (replaced(colour=["1.5"] * 50), "column 'colour' has '1.5': convert numbers that are written as text"),
        (
            replaced(colour=["red"] * 50, time=np.array(gap(None, 7), dtype=object)),
            "column 'time' has None, 'colour' has 'red': .* leave other columns out",
        ),
        (replaced(colour=[date(2020, 1, 1)] * 50), r"column 'colour' has datetime.date\(2020, 1, 1\)"),
        (replaced(colour=np.array(gap(2j, 0), dtype=object)), "column 'colour' has 2j"),
    ],
)
def test_columns_that_hold_no_numbers(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match="X must hold real numbers, but " + message):
        cvf.discover(Frame(**columns))


def test_lists_and_arrays_with_text_in_them() -> None:
    rows = [[0.5, "a"], [1.5, "b"]] * 20
    for X in (rows, np.array(rows, dtype=object)):
        with pytest.raises(TypeError, match="but column 1 has 'a'"):
            cvf.discover(X)
    with pytest.raises(TypeError, match=r"in the shape \(n, d\), got objects in the shape \(2,\)"):
        cvf.discover(["a", "b"])
    times = np.zeros((50, 2), dtype="datetime64[ns]")
    with pytest.raises(TypeError, match=r"got datetime64\[ns\]: convert times to numbers"):
        cvf.discover(times)


def test_numbers_and_truth_values_held_as_objects() -> None:
    X = np.array([[1, 2.5, True], [np.int64(3), np.float32(0.5), np.bool_(False)]], dtype=object)
    assert as_table(X)[0].tolist() == [[1, 2.5, 1], [3, 0.5, 0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (replaced(time=gap(np.nan, 3)), r"NaN or infinity in the columns \['time'\]"),
        (replaced(time=[0.1] * 50, colour=[1] * 50), r"X has constant columns, \['time', 'colour'\]: leave"),
        (replaced(time=2 * parabola(50)["colour"]), "same column twice, up to its units: 'time' and 'colour'"),
        (replaced(colour=parabola(50)["time"] - parabola(50)["distance"]), r"without noise: \['colour'\]"),
    ],
)
def test_errors_name_the_columns(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cvf.discover(Frame(**columns))


def test_a_name_twice() -> None:
    X = Frame(**parabola(50))
    X.columns = ["a", "b", "a"]
    with pytest.raises(ValueError, match=r"X has columns of the same name, \['a'\]: give each its own"):
        cvf.discover(X)


def test_data_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    columns: dict[str, Sequence[Any]] = {name: column.tolist() for name, column in parabola().items()}
    result = cvf.discover(pandas.DataFrame(columns), features=30)
    assert result.names == ("time", "distance", "colour")
    assert "distance -> time" in str(result)
    with pytest.raises(TypeError, match="column 'colour' has 'red'"):
        cvf.discover(pandas.DataFrame({**columns, "colour": "red"}))
    assert cvf.discover(pandas.DataFrame(as_tensor(parabola()).numpy()), features=30).names == (0, 1, 2)
