"""How the pivots and estimators of SEMPrior differ; writes the tables of docs/pivots.md. Seven minutes.

python bench/pivots.py
python bench/pivots.py --only ovals
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pages import fill
from torch import Tensor

from causalvae_fast import GumbelEdges, LinearMechanism, MLPMechanism, QuadraticMechanism, SEMPrior
from causalvae_fast.data import make_ovals
from causalvae_fast.metrics import shd

PAGE = Path(__file__).resolve().parents[1] / "docs" / "pivots.md"
WAYS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sample": {"pivot": "posterior_sample"},
    "mean-centred, 16": {"pivot": "ancestral", "pivots": 16, "centre": "mean"},
    "mean-centred, 256": {"pivot": "ancestral", "pivots": 256, "centre": "mean"},
    "min, mean-centred, 16": {"pivot": "ancestral", "pivots": 16, "closest": "min", "centre": "mean"},
    "min, mean-centred, 256": {"pivot": "ancestral", "pivots": 256, "closest": "min", "centre": "mean"},
    "pivot-centred, 16": {"pivot": "ancestral", "pivots": 16, "centre": "pivot"},
    "pivot-centred, 256": {"pivot": "ancestral", "pivots": 256, "centre": "pivot"},
    "min, pivot-centred, 16": {"pivot": "ancestral", "pivots": 16, "closest": "min", "centre": "pivot"},
    "Monte Carlo": {"estimator": "monte_carlo"},
}
SIGMA = 0.3  # of the noise of y
POSTERIORS = 1000
DRAWS = 50  # of pivots or samples, averaged

# Learning the graph.
SEEDS = range(5)
DATA, BATCH, STEPS = 2000, 256, 600
TAU = 0.1  # of the noise with which the latents are observed
PENALTY = 0.1  # for each expected edge
LATENTS = ("x", "y", "scale", "rotation", "w")  # of ovals, in the order of the causes
LEARNED = [name for name in WAYS if name != "min, mean-centred, 256"]


def posteriors(curvature: float) -> Tensor:
    """Means (POSTERIORS, 2) of posteriors: samples of the model x = n_0, y = c x^2 + n_1."""
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, POSTERIORS, generator=generator, dtype=torch.float64)
    return torch.stack([x, curvature * x.square() + SIGMA * noise], dim=-1)


def exact_kl(loc: Tensor, scale: float, curvature: float) -> Tensor:
    """KL(N(m, s^2 I) || the model), (B,), from the moments of x and x^2 under N(m_x, s^2)."""
    (mx, my), v, c = loc.unbind(-1), scale**2, curvature
    residual = (my - c * (mx.square() + v)).square() + v + c**2 * (4 * mx.square() * v + 2 * v**2)
    return 0.5 * (mx.square() + v + residual / SIGMA**2) - 1 + math.log(SIGMA) - 2 * math.log(scale)


def parabola(curvature: float, **way: Any) -> SEMPrior:
    mechanism = QuadraticMechanism({1: 0})
    mechanism.quadratic *= curvature
    return SEMPrior(mechanism, log_sigma=torch.tensor([0.0, math.log(SIGMA)]), **way).double()


def bias_row(curvature: float, scale: float) -> list[str]:
    """The exact divergence, the bias of each way, and the spread of Monte Carlo values; means over posteriors."""
    loc = posteriors(curvature)
    exact = exact_kl(loc, scale, curvature)
    cells = [f"{exact.mean():.2f}"]
    for name, way in WAYS.items():
        torch.manual_seed(0)
        prior = parabola(curvature, **way)
        draws = torch.stack([prior.kl(loc, scale=torch.full_like(loc, scale)) for _ in range(DRAWS)])
        bias = (draws - exact).mean().item()
        spread = f" ± {draws.std(0).mean():.2f}" if name == "Monte Carlo" else ""
        cells.append(f"{bias:+.3f}{spread}" if abs(bias) < 10 else f"{bias:+.0f}")
    return cells


def bias() -> list[str]:
    lines = [f"| c | s | exact | {' | '.join(WAYS)} |", "|---" * (len(WAYS) + 3) + "|"]
    cases = [(c, 0.3) for c in (0.0, 0.1, 0.3, 1.0, 3.0)] + [(1.0, s) for s in (0.03, 0.1, 1.0)]
    return lines + [f"| {c:g} | {s:g} | {' | '.join(bias_row(c, s))} |" for c, s in cases]


def linear() -> list[str]:
    """The largest error on a linear SEM of 5 nodes."""
    torch.manual_seed(0)
    mechanism = LinearMechanism(5, init_std=5**-0.5).double()
    mechanism.bias.data.normal_()
    loc, scale = torch.randn(2, POSTERIORS, 5, dtype=torch.float64)
    scale = scale.abs() + 0.1
    exact = SEMPrior(mechanism).double().kl(loc, scale=scale)
    ways = {name: way for name, way in WAYS.items() if name != "Monte Carlo"}
    cells = []
    for way in ways.values():
        error = (SEMPrior(mechanism, **way).double().kl(loc, scale=scale) - exact).abs().max().item()
        cells.append("exact" if error < 1e-9 else f"off by up to {error:.2g}")
    return [f"| {' | '.join(ways)} |", "|---" * len(ways) + "|", f"| {' | '.join(cells)} |"]


def observed(seed: int) -> Tensor:
    """(DATA, 3): x ~ N(0, 1), w ~ N(0, 1) that nothing depends on, and y = x^2 + 0.3 n, scaled to variance 1."""
    generator = torch.Generator().manual_seed(seed)
    x, w, noise = torch.randn(3, DATA, generator=generator)
    y = x.square() + SIGMA * noise
    return torch.stack([x, w, (y - y.mean()) / y.std()], dim=-1)


def fit(data: Tensor, way: dict[str, Any], seed: int) -> tuple[float, SEMPrior]:
    """Learn the SEM under posteriors N(data, diag(s^2)), decoded as N(z, TAU^2): the final loss, and the prior.

    The loss is the average over the last tenth of the steps, in nats, with the penalty.
    """
    torch.manual_seed(seed)
    d = data.shape[1]
    prior = SEMPrior(MLPMechanism(d, hidden=16), GumbelEdges(d, init_probability=0.7), learn_log_sigma=True, **way)
    log_scale = torch.full((d,), math.log(TAU)).requires_grad_()
    optimizer = torch.optim.Adam([*prior.parameters(), log_scale], lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    losses = []
    for _ in range(STEPS):
        loc = data[torch.randint(len(data), (BATCH,))]
        scale = log_scale.exp().expand(BATCH, d)
        z = loc + scale * torch.randn_like(loc)
        reconstruction = 0.5 * scale.square().sum(-1).mean() / TAU**2
        loss = reconstruction + prior.kl(loc, scale=scale, z=z, reduction="mean")
        loss = loss + PENALTY * prior.expected_edges()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return statistics.fmean(losses[-STEPS // 10 :]), prior.eval()


def in_both_orders(data: Tensor, name: str, seed: int) -> tuple[Tensor, float]:
    """The graph learned in the order of the columns, and by how much the loss in the reverse order is higher."""
    forward, prior = fit(data, WAYS[name], seed)
    backward, _ = fit(data.flip(-1), WAYS[name], seed)
    return prior.adjacency(), backward - forward


def graphs() -> list[str]:
    lines = [
        "| way | graphs found in the order x, w, y | wrong edges in all | x → y preferred to y → x | by, nats |",
        "|---|---|---|---|---|",
    ]
    truth = torch.zeros(3, 3, dtype=torch.bool)
    truth[0, 2] = True
    for name in LEARNED:
        learned = [in_both_orders(observed(seed), name, seed) for seed in SEEDS]
        errors = [shd(adjacency, truth) for adjacency, _ in learned]
        lines.append(
            f"| {name} | {errors.count(0)} of {len(SEEDS)} | {sum(errors)} | "
            f"{preferred([margin for _, margin in learned])} |"
        )
        print(lines[-1], flush=True)
    return lines


def preferred(margins: list[float]) -> str:
    right = sum(margin > 0 for margin in margins)
    return f"{right} of {len(margins)} | {statistics.median(margins):+.2f}"


def ovals() -> list[str]:
    """The five latents of the experiment with ovals, without its images."""
    lines = [
        "| way | graphs found | x → y found | other edges, in all | SHD, mean | x → y preferred | by, nats |",
        "|---|---|---|---|---|---|---|",
    ]
    truth = torch.zeros(5, 5, dtype=torch.bool)
    truth[0, 1] = True
    factors = make_ovals().factors
    for name in LEARNED:
        learned = [in_both_orders(latents_of_ovals(factors, seed), name, seed) for seed in SEEDS]
        errors = [shd(adjacency, truth) for adjacency, _ in learned]
        edges = Counter(
            f"{LATENTS[i]} → {LATENTS[j]}" for adjacency, _ in learned for i, j in adjacency.nonzero().tolist()
        )
        n, found = len(SEEDS), edges.pop("x → y", 0)
        others = ", ".join(f"{count} {edge}" for edge, count in edges.most_common()) or "none"
        lines.append(
            f"| {name} | {errors.count(0)} of {n} | {found} of {n} | {others} | {statistics.mean(errors):.1f} | "
            f"{preferred([margin for _, margin in learned])} |"
        )
        print(lines[-1], flush=True)
    return lines


def latents_of_ovals(factors: Tensor, seed: int) -> Tensor:
    """(DATA, 5): x, y, scale and rotation of ovals taken at random, w ~ N(0, 1); all scaled to variance 1."""
    generator = torch.Generator().manual_seed(seed)
    chosen = factors[torch.randperm(len(factors), generator=generator)[:DATA]]
    latents = torch.cat([chosen, torch.randn(DATA, 1, generator=generator)], dim=1)
    return (latents - latents.mean(0)) / latents.std(0)


TABLES: dict[str, Callable[[], list[str]]] = {"linear": linear, "bias": bias, "graphs": graphs, "ovals": ovals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="these tables")
    torch.set_num_threads(1)
    for name in parser.parse_args().only:
        with torch.set_grad_enabled(name in ("graphs", "ovals")):
            lines = TABLES[name]()
        print("\n".join(lines), end="\n\n", flush=True)
        fill(PAGE, {name: lines})


if __name__ == "__main__":
    main()
