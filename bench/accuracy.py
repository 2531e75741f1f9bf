"""Accuracy of `sem_kl` and torch.distributions on ill-conditioned SEMs; writes the tables of docs/accuracy.md.

    python bench/accuracy.py

The truth is computed in 50 digits; inputs, truth and bound are those of the tests (tests/ops/sem_kl_bound.py).
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "ops"))

from inputs import DTYPES, POSTERIORS, SEMInputs  # noqa: E402
from pages import fill  # noqa: E402
from sem_kl_bound import Truth, bound, error, gradient_errors, ill_conditioned, truth  # noqa: E402

from causalvae_fast.ops import sem_kl  # noqa: E402

SIZES = (4, 16, 32, 64)
SEEDS = 20
PAGE = ROOT / "docs" / "accuracy.md"
# A value that is off by more than this is of no use as a loss.
WRONG = 0.01


def ours(inputs: SEMInputs) -> Tensor:
    return inputs.call(sem_kl)


def with_scale_tril(inputs: SEMInputs) -> Tensor:
    W, b, sigma, q = _gaussians(inputs)
    columns = torch.cat((b.unsqueeze(-1), sigma.diag_embed()), -1)
    solved = torch.linalg.solve_triangular(W, columns, upper=False, unitriangular=True)
    return kl_divergence(q, MultivariateNormal(solved[..., 0], scale_tril=solved[..., 1:]))


def with_covariance_matrix(inputs: SEMInputs) -> Tensor:
    W, b, sigma, q = _gaussians(inputs)
    inverse = torch.linalg.inv(W)
    covariance = inverse @ sigma.square().diag_embed() @ inverse.mT
    return kl_divergence(q, MultivariateNormal((inverse @ b.unsqueeze(-1)).squeeze(-1), covariance))


def _gaussians(inputs: SEMInputs) -> tuple[Tensor, Tensor, Tensor, MultivariateNormal]:
    jac, offset, log_sigma, loc, factor = inputs
    W = torch.eye(loc.shape[1], dtype=loc.dtype) - jac.tril(-1)
    L = factor.diag_embed() if factor.dim() == 2 else factor.tril()
    return W, offset, log_sigma.exp().expand_as(loc), MultivariateNormal(loc, scale_tril=L)


CONTENDERS: dict[str, Callable[[SEMInputs], Tensor]] = {
    "`sem_kl`": ours,
    "`scale_tril`": with_scale_tril,
    "`covariance_matrix`": with_covariance_matrix,
}


class Tally:
    """What became of the cases of one row."""

    def __init__(self) -> None:
        self.relative: list[float] = []
        self.raised = self.not_finite = 0

    def add(self, function: Callable[[SEMInputs], Tensor], inputs: SEMInputs, expected: Truth) -> None:
        try:
            value = function(inputs)[0]
        except (ValueError, RuntimeError):  # "the parameter has invalid values", "is not positive-definite"
            self.raised += 1
            return
        if value.isfinite():
            self.relative.append(error(value, expected.value) / float(abs(expected.value)))
        else:
            self.not_finite += 1

    def __str__(self) -> str:
        parts = [f"{self.raised} raised"] if self.raised else []
        parts += [f"{self.not_finite} NaN or infinite"] if self.not_finite else []
        wrong = sum(x > WRONG for x in self.relative)
        parts += [f"{wrong} wrong"] if wrong else []
        if self.relative:
            parts.append(f"{_number(statistics.median(self.relative))} / {_number(max(self.relative))}")
        return ", ".join(parts)


def _number(x: float) -> str:
    return f"{x:.1e}".replace("e-0", "e-").replace("e+0", "e+")


def values() -> list[str]:
    """For each contender, how many failed, and the median and largest relative error of the rest."""
    lines = [f"| dtype | posterior | d | {' | '.join(CONTENDERS)} |", "|---|---|---|---|---|---|"]
    for dtype, posterior, d in product(DTYPES, POSTERIORS, SIZES):
        tallies = {name: Tally() for name in CONTENDERS}
        for seed in range(SEEDS):
            rounded = ill_conditioned(d, posterior, seed)
            expected = truth(rounded)
            inputs = rounded.map(lambda t, dtype=dtype: t.to(dtype))  # type: ignore[misc]
            for name, function in CONTENDERS.items():
                tallies[name].add(function, inputs, expected)
        name = str(dtype).removeprefix("torch.")
        lines.append(f"| {name} | {posterior} | {d} | {' | '.join(map(str, tallies.values()))} |")
    return lines


def against_the_bound() -> list[str]:
    """`sem_kl` against the bound: the largest ratios over the seeds and, of gradients, over the elements."""
    lines = [
        "| dtype | posterior | d | bound / value | error / bound, value | loc gradient | factor gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype, posterior, d in product(DTYPES, POSTERIORS, SIZES):
        rows = []
        for seed in range(SEEDS):
            rounded = ill_conditioned(d, posterior, seed)
            expected, limit = truth(rounded), bound(rounded, dtype)
            leaves = rounded.map(lambda t, dtype=dtype: t.to(dtype)).leaves()  # type: ignore[misc]
            value = ours(leaves)
            loc, factor = torch.autograd.grad(value.sum(), leaves[3:])
            rows.append(
                (
                    limit.value / float(expected.value),
                    error(value[0], expected.value) / limit.value,
                    _largest(gradient_errors(loc[0], expected.loc_gradient), limit.loc_gradient),
                    _largest(gradient_errors(factor[0], expected.factor_gradient), limit.factor_gradient),
                )
            )
        numbers = [_number(max(column)) for column in zip(*rows, strict=True)]
        name = str(dtype).removeprefix("torch.")
        lines.append(f"| {name} | {posterior} | {d} | {' | '.join(numbers)} |")
    return lines


def _largest(errors: Tensor, limits: Tensor) -> float:
    return max(e / b for e, b in zip(errors.flatten().tolist(), limits.flatten().tolist(), strict=True) if b > 0)


def condition_numbers() -> str:
    """Of Sigma, from its square root W^-1 D^1/2."""
    found = []
    for d in SIZES:
        logs = []
        for seed in range(SEEDS):
            jac, _, log_sigma, _, _ = ill_conditioned(d, "full", seed).map(Tensor.double)
            W = torch.eye(d, dtype=torch.float64) - jac[0]
            root = torch.linalg.solve_triangular(W, log_sigma.exp().diag(), upper=False, unitriangular=True)
            inverse = W / log_sigma.exp()[:, None]
            logs.append(2 * math.log10(root.norm().item() * inverse.norm().item()))
        found.append(f"10^{statistics.median(logs):.0f} at d = {d}")
    return ", ".join(found)


def main() -> None:
    torch.set_num_threads(1)
    blocks = {
        "values": values(),
        "bound": against_the_bound(),
        "condition": [f"The median condition number of Σ (Frobenius) is {condition_numbers()}."],
    }
    print("\n\n".join("\n".join(lines) for lines in blocks.values()))
    fill(PAGE, blocks)


if __name__ == "__main__":
    main()
