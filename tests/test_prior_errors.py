"""What SEMPrior says to bad input."""

import math
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Laplace, Normal

from causalvae_fast import GumbelEdges, LinearMechanism, SEMPrior

BAD = torch.zeros(2, 4)  # for a prior over three latents
Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: SEMPrior(LinearMechanism(3), GumbelEdges(4)),
            ValueError,
            "edges has 4 nodes, but mechanism has 3",
        ),
        (
            lambda p: SEMPrior(LinearMechanism(3), log_sigma=torch.zeros(2)),
            ValueError,
            r"log_sigma must .* got \(2,\)",
        ),
        (lambda p: p.kl(BAD, scale=BAD), ValueError, r"loc must have shape \(B, 3\), got \(2, 4\)"),
        (lambda p: p.kl(Z[0], scale=Z[0]), ValueError, r"loc must have shape \(B, 3\), got \(3,\)"),
        (lambda p: p.kl(Normal(BAD, 1.0)), ValueError, r"loc must have shape \(B, 3\)"),
        (lambda p: p.kl(Z), ValueError, "scale"),
        (lambda p: p.kl(Z, scale=Z + 1, scale_tril=torch.eye(3).expand(2, 3, 3)), ValueError, "scale"),
        (lambda p: p.kl(Z, scale=Z + 1, reduction="max"), ValueError, "reduction"),
        (
            lambda p: p.kl(Normal(Z, 1.0), scale=Z + 1),
            ValueError,
            "scale and scale_tril are part of the distrib",
        ),
        (lambda p: p.kl(Laplace(Z, 1.0)), TypeError, "q must be a Normal, .* got Laplace"),
        (
            lambda p: p.kl(Independent(Laplace(Z, 1.0), 1)),
            TypeError,
            "q must be a Normal, .* got Independent",
        ),
        (lambda p: p.kl(Independent(Normal(Z, 1.0), 2)), TypeError, "q must be a Normal, .* got Independent"),
        (lambda p: p.log_prob(BAD), ValueError, r"z must have shape \(B, 3\), got \(2, 4\)"),
        (lambda p: p.abduct(Z[0]), ValueError, r"z must have shape \(B, 3\), got \(3,\)"),
        (lambda p: p.counterfactual(BAD, {0: 1.0}), ValueError, r"z must have shape \(B, 3\)"),
        (lambda p: p.local_gaussian(BAD), ValueError, r"pivot must have shape \(B, 3\)"),
        (lambda p: p.rsample(3), TypeError, r"sample_shape must be a tuple of sizes, as \(3,\), got 3"),
        (lambda p: p.rsample(3.5), TypeError, r"sample_shape must be a tuple of sizes, as \(3,\), got 3\.5"),
        (lambda p: p.rsample((3.5,)), TypeError, "a size of sample_shape must be an integer, got 3.5"),
        (lambda p: p.rsample((2, -1)), ValueError, "a size of sample_shape must be at least 0, got -1"),
        (
            lambda p: SEMPrior(LinearMechanism(3), torch.ones(3, 3)),
            TypeError,
            r"edges must be GumbelEdges, as GumbelEdges\(3\), got Tensor",
        ),
        (
            lambda p: SEMPrior(LinearMechanism(3), log_sigma="a"),
            TypeError,
            r"log_sigma must be a number or a tensor \(3,\), got 'a'",
        ),
        (
            lambda p: SEMPrior(LinearMechanism(3), log_sigma=math.nan),
            ValueError,
            "log_sigma must be finite, got nan",
        ),
        (
            lambda p: SEMPrior(LinearMechanism(3), log_sigma=nn.Parameter(torch.zeros(3))),
            ValueError,
            "log_sigma is copied, .* learn_log_sigma=True",
        ),
        (lambda p: SEMPrior(LinearMechanism(3), pivots=2.5), TypeError, "pivots must be an integer, got 2.5"),
        (lambda p: p(Z), TypeError, r"a prior is not called: use prior\.kl\(\.\.\.\)"),
        (lambda p: p.adjacency(1.0), ValueError, "threshold must be at least 0 and below 1, got 1.0"),
        (lambda p: p.to_networkx(-0.1), ValueError, "threshold must be at least 0 and below 1, got -0.1"),
        (lambda p: p.adjacency(math.nan), ValueError, "threshold must be at least 0 and below 1, got nan"),
        (
            lambda p: p.kl(Z.expand(4, 2, 3), scale=Z + 1),
            ValueError,
            r"loc must have shape \(B, 3\), got \(4, 2, 3\): flatten the leading dimensions",
        ),
        (
            lambda p: p.kl(Z, scale=torch.ones(3)),
            ValueError,
            r"scale must have the shape of loc, \(2, 3\), got \(3,\): use scale\.expand_as\(loc\)",
        ),
        (
            lambda p: p.kl(Z, scale=0.5),
            ValueError,
            r"scale must .* got 0\.5: use torch\.tensor\(scale\)\.expand_as",
        ),
        (
            lambda p: p.kl(Z.double(), scale=Z.double() + 1),
            TypeError,
            "loc has dtype .*64, but the prior .*32",
        ),
        (lambda p: p.log_prob(Z.bfloat16()), TypeError, "z has dtype .*bfloat16, but the prior .*32"),
        (lambda p: p.kl([[1.0]], scale=Z + 1), TypeError, "loc must be a tensor, got list"),
        (lambda p: p.kl(Z, scale=Z + 1, edges=1), TypeError, "edges must be a tensor, got int"),
        (lambda p: p.kl(Z, scale=Z - 1, validate_args=True), ValueError, "scale must be above 0, got -1.0"),
        (
            lambda p: p.rsample((2,), do={0: None}),
            TypeError,
            r"do\[0\] must be a real number or a tensor, got NoneType",
        ),
        (lambda p: p.rsample((2,), do={True: 0.0}), ValueError, "do names node True"),
        (lambda p: SEMPrior(4), TypeError, r"mechanism must be a Mechanism, as LinearMechanism\(d\), got int"),
        (lambda p: p.kl(Z, scale=Z.double() + 1), TypeError, "scale has dtype .*64, but loc has .*32"),
        (lambda p: p.rsample((2,), do={3: 1.0}), ValueError, "do names node 3, but the nodes are 0 to 2"),
        (lambda p: p.rsample((2,), do={-1: 1.0}), ValueError, "do names node -1, but the nodes are 0 to 2"),
        (lambda p: p.rsample((2,), do={"x": 1.0}), ValueError, "do names node 'x', but the nodes are 0 to 2"),
        (lambda p: p.rsample((2,), do={0: Z[0]}), ValueError, r"do\[0\] must be .* shape \(2,\), got \(3,\)"),
        (lambda p: p.counterfactual(Z, {1: Z}), ValueError, r"do\[1\] must be .* shape \(2,\), got \(2, 3\)"),
        (
            lambda p: p.to_networkx(names=["a"]),
            ValueError,
            "names must give a different name to each of the 3",
        ),
    ],
)
def test_errors_name_the_argument(
    call: Callable[[SEMPrior], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(SEMPrior(LinearMechanism(3)))


def test_graph_without_networkx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"pip install 'causalvae_fast\[plots\]'"):
        SEMPrior(LinearMechanism(2)).to_networkx()
