"""What `discover` gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from causalvae_fast.discovery.table import Names
from causalvae_fast.graph import convert

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Candidate:
    """A graph beside the best one.

    Attributes:
        adjacency: boolean (d, d), [i, j] true where i -> j.
        score: mean log likelihood less the penalty.
        difference: how much lower that is than the best score, at least 0.
        standard_error: of the difference, from the differences of single samples.
        names: of the nodes, if the data had names.
    """

    adjacency: Tensor
    score: float
    difference: float
    standard_error: float
    names: Names | None = None

    def __repr__(self) -> str:
        names = self.names or range(len(self.adjacency))
        edges = ", ".join(f"{names[i]} -> {names[j]}" for i, j in self.adjacency.nonzero().tolist()) or "no edges"
        return f"<{edges} | {self.difference:.4g} ± {self.standard_error:.2g} below the best>"


@dataclass(frozen=True, eq=False, repr=False)
class Discovery:
    """The best graph, and how sure its directions are.

    Attributes:
        adjacency: boolean (d, d), [i, j] true where i -> j, as in networkx.
        score: `log_likelihood` less `penalty` for each edge.
        log_likelihood: mean log density of a sample, out of sample, of the standardised columns.
        penalty: what an edge costs.
        samples: number n of samples.
        candidates: the runners-up, best first.
        margins: (d, d) float64; for each edge i -> j, how much lower the best graph with j -> i scores; NaN
            where there is no edge.
        standard_errors: (d, d) float64, of the margins.
        identified_edges: boolean (d, d), the edges whose direction the data tell.
        search: "exhaustive" or "orders".
        graphs: how many graphs were compared.
        regressions: how many fits that took.
        names: of the nodes, those of the data frame's columns; None where the data had none.
    """

    adjacency: Tensor
    score: float
    log_likelihood: float
    penalty: float
    samples: int
    candidates: tuple[Candidate, ...]
    margins: Tensor
    standard_errors: Tensor
    identified_edges: Tensor
    search: str
    graphs: int
    regressions: int
    names: Names | None = None

    @property
    def identified(self) -> bool:
        """Whether the direction of every edge is told by the data. True of a graph without edges."""
        return bool((self.identified_edges == self.adjacency).all())

    def to_networkx(self) -> networkx.DiGraph:
        """The graph, with `margin` and `identified` of each edge; its nodes are `names`, or numbers without them.

        Raises:
            ImportError: if networkx is not installed.
        """
        attributes = {"margin": self.margins.mT, "identified": self.identified_edges.mT}
        return convert.to_networkx(self.adjacency, attributes, self.names)

    def __repr__(self) -> str:
        d = self.adjacency.shape[0]
        edges = self.adjacency.nonzero().tolist()
        lines = [
            f"Discovery: {_count(d, 'node')}, {_count(len(edges), 'edge')}, n = {self.samples}, "
            f"score {self.score:.4f}, the best of {_count(self.graphs, 'graph')} ({self.search})"
        ]
        lines += [f"  {self._edge(i, j)}" for i, j in edges]
        if not self.identified:
            lines.append("  not identified: the data do not tell every direction")
        return "\n".join(lines)

    def _edge(self, i: int, j: int) -> str:
        margin, error = float(self.margins[i, j]), float(self.standard_errors[i, j])
        names = self.names or range(len(self.adjacency))
        a, b = names[i], names[j]
        if self.identified_edges[i, j]:
            return f"{a} -> {b}  turned round it scores {margin:.3g} ± {error:.2g} less"
        return f"{a} -- {b}  direction not identified: {b} -> {a} scores {margin:.2g} ± {error:.2g} less"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
