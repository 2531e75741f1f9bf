"""Score-based causal discovery."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from causalvae_fast.discovery._progress import progress_bar
from causalvae_fast.discovery.exhaustive import MAX_NODES, ExhaustiveSearch, fits_of
from causalvae_fast.discovery.graphs import Parents, edges_of, to_adjacency
from causalvae_fast.discovery.local_scores import LocalScores
from causalvae_fast.discovery.orders import OrderSearch
from causalvae_fast.discovery.result import Candidate, Discovery
from causalvae_fast.discovery.search import Limits, PenalisedScore, Search
from causalvae_fast.discovery.table import Names, as_table, standardise, warn_of_two_values

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

Edge = tuple[int, int]


def discover(
    X: Tensor | ArrayLike,
    *,
    penalty: float | None = None,
    search: Literal["auto", "exhaustive", "orders"] = "auto",
    max_parents: int | None = None,
    candidates: int = 10,
    standard_errors: float = 2.0,
    features: int = 100,
    restarts: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Discovery:
    """The graph of the non-linear SEM with Gaussian noise, x_i = f_i(parents of i) + n_i, that fits data best.

    The score of a graph G is the mean log likelihood of a sample under the fit to all others, less a penalty:

        score(G) = mean_n sum_i log N(x_ni; f_i(x_n,parents), sigma_i^2) - penalty |G|

    f_i is a ridge regression on random Fourier features (`discovery.regression`). Columns are standardised first,
    so that no score depends on units or on which variable has the larger variance.

    **Which directions are told.** For each edge i -> j of the best graph, the best graph with j -> i is found. The
    direction counts as identified if that one scores lower by more than `standard_errors` standard errors of the
    difference, and by more than log(n) / (2 n): where both graphs fit equally well, as in a linear SEM with
    Gaussian noise, the difference is of the order of 1 / n, and so is its standard error.

    The result rests on assumptions that the data cannot show: no unobserved common causes, independent samples,
    noise that is additive and Gaussian. Other noise can turn a direction round (docs/discovery.md).

    Args:
        X: (n, d), n >= 30 samples of d >= 1 variables; tensor, array or data frame, of real numbers. The names of
            a data frame's columns are kept. The work is done in float64 on the CPU, wherever X is.
        penalty: of an edge, in nats per sample, at least 0; log(n) / (2 n) by default, that of the Bayesian
            information criterion. Section 3.2.1 of the paper has 1 / log(n), which misses most edges that are
            weaker than R2 = 0.2 (docs/discovery.md).
        search: "exhaustive" compares all directed acyclic graphs, for d <= 5; "orders" is greedy; "auto" takes
            the first where it can.
        max_parents: of any node, at least 0; d - 1 by default.
        candidates: how many runners-up to return, at least 0.
        standard_errors: that a direction needs to be called identified, at least 0.
        features: random features of each regression, at least 1.
        restarts: random orders that the greedy search starts from, beside its own, at least 0.
        seed: of features and restarts. The same seed gives the same result.
        progress: show a bar, on a terminal and if rich is installed.

    Returns:
        The graph, `result.adjacency` boolean (d, d) with [i, j] true where i -> j, its score, the runners-up and
        what is identified. With "orders", runners-up and margins are those that were found, so that a margin
        may be too large.

    Raises:
        TypeError: if X is a dictionary or text, or holds anything but real numbers; if a number of things, or the
            seed, is no integer.
        ValueError: if X has another shape, too few samples, values that are not finite, a constant column, a
            column twice (up to its units), a name twice, or a column that is a function of others without noise;
            if another argument is out of its range. The message names the columns.
        UserWarning: of columns that have only two values, which are no part of the model.

    >>> x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    >>> y = x**2 + torch.randn(500, generator=torch.Generator().manual_seed(1))
    >>> discover(torch.stack((y, x), 1)).adjacency.int()
    tensor([[0, 0],
            [1, 0]], dtype=torch.int32)
    """
    values, names = as_table(X)
    standardised = standardise(values, names)
    warn_of_two_values(values, names)
    n, d = standardised.shape
    penalty = math.log(n) / (2 * n) if penalty is None else penalty
    max_parents = d - 1 if max_parents is None else max_parents
    for name, value, kind, least in (
        ("penalty", penalty, Real, 0),
        ("max_parents", max_parents, Integral, 0),
        ("candidates", candidates, Integral, 0),
        ("standard_errors", standard_errors, Real, 0),
        ("features", features, Integral, 1),
        ("restarts", restarts, Integral, 0),
        ("seed", seed, Integral, -math.inf),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {'an integer' if kind is Integral else 'a number'}, got {value!r}")
        if least > -math.inf and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if search not in ("auto", "exhaustive", "orders"):
        raise ValueError(f'search must be "auto", "exhaustive" or "orders", got {search!r}')
    if search == "exhaustive" and d > MAX_NODES:
        raise ValueError(f'search="exhaustive" takes at most {MAX_NODES} variables, got {d}; use "orders"')
    exhaustive = search == "exhaustive" or (search == "auto" and d <= MAX_NODES)
    limits = Limits(int(min(max_parents, d - 1)), int(restarts), int(seed))

    regressions = len(fits_of(d, limits)) if exhaustive else None
    # Whatever torch.set_default_device says.
    with torch.device("cpu"), progress_bar(regressions, progress) as report:
        score = PenalisedScore(LocalScores(standardised, int(features), int(seed), report, names), penalty)
        found: Search = ExhaustiveSearch(score, limits) if exhaustive else OrderSearch(score, limits)
        best, turned = _with_alternatives(found)
        compare = _Comparison(score, best, names)
        runners_up = [compare.candidate(graph) for graph in found.ranking(candidates + 1) if graph != best]

        margins, errors = torch.full((2, d, d), torch.nan, dtype=torch.float64)
        for (i, j), alternative in turned.items():
            margins[i, j], errors[i, j] = compare(alternative)
        adjacency = to_adjacency(best)
    identified = margins > torch.clamp(standard_errors * errors, min=math.log(n) / (2 * n))
    return Discovery(
        adjacency=adjacency,
        score=score(best),
        log_likelihood=score.log_likelihood(best),
        penalty=penalty,
        samples=n,
        candidates=tuple(runners_up[:candidates]),
        margins=margins,
        standard_errors=errors,
        identified_edges=identified,
        search="exhaustive" if exhaustive else "orders",
        graphs=found.graphs,
        regressions=score.local.fits,
        names=names,
    )


def _with_alternatives(found: Search) -> tuple[Parents, dict[Edge, Parents]]:
    """The best graph, and for each of its edges the best graph that has it turned round."""
    while True:
        best = found.ranking(1)[0]
        turned = {(i, j): found.best_with_edge(j, i) for i, j in edges_of(best)}
        # A greedy search that starts from the best graph may come upon a better one.
        if found.ranking(1)[0] == best:
            return best, turned


class _Comparison:
    """Of other graphs with the best one."""

    def __init__(self, score: PenalisedScore, best: Parents, names: Names | None) -> None:
        self._score = score
        self._best = best
        self._names = names

    def __call__(self, other: Parents) -> tuple[float, float]:
        """How much lower another graph scores, and the standard error of that, over the samples."""
        own, others = self._score.local.log_densities(self._best, other)
        error = float((own - others).std()) / math.sqrt(len(own))
        return self._score(self._best) - self._score(other), error

    def candidate(self, graph: Parents) -> Candidate:
        difference, error = self(graph)
        return Candidate(to_adjacency(graph), self._score(graph), difference, error, self._names)
