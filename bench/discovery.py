"""How well `discover` finds graphs and directions; writes the tables of docs/discovery.md.

    pip install '.[discovery-bench]'
    python bench/discovery.py
    python bench/discovery.py --only comparison --again

Graphs are appended to bench/results/discovery/learned.jsonl as they are learned, and what the file has already is
not learned again; with --again, those of `discover` are, after it has changed. Data sets are kept in
build/discovery: a draw from a Gaussian process takes seconds.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from discovery_peers import PEERS, Data, Graph, simulate
from pages import fill
from records import environment
from torch import Tensor

import causalvae_fast as cvf
from causalvae_fast.discovery import Discovery
from causalvae_fast.discovery.exhaustive import ExhaustiveSearch
from causalvae_fast.discovery.graphs import to_adjacency
from causalvae_fast.discovery.local_scores import LocalScores
from causalvae_fast.discovery.search import Limits, PenalisedScore
from causalvae_fast.discovery.table import standardise
from causalvae_fast.metrics import edge_scores, shd

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "discovery.md"
ROWS = ROOT / "bench" / "results" / "discovery" / "learned.jsonl"
CACHE = ROOT / "build" / "discovery"

SEMS = ("mlp", "gp")
SCALES = ("raw", "standardised")
SEEDS = 20
SAMPLES = 2000
OURS = "`discover`"
KEY = ("method", "sem", "data", "seed", "samples")

PENALTIES: dict[str, Callable[[int], float]] = {
    "0": lambda n: 0.0,
    "log n / (2 n)": lambda n: math.log(n) / (2 * n),
    "log n / n": lambda n: math.log(n) / n,
    "0.01": lambda n: 0.01,
    "0.03": lambda n: 0.03,
    "1 / log n": lambda n: 1 / math.log(n),
}


def data_set(sem: str, seed: int, samples: int, scale: str = "raw") -> tuple[Data, Graph]:
    path = CACHE / f"{sem}-{seed}-{samples}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        X, truth = simulate(sem, seed, samples)
        np.savez(path, X=X, truth=truth)
    with np.load(path) as stored:
        X, truth = stored["X"], stored["truth"]
    return ((X - X.mean(0)) / X.std(0) if scale == "standardised" else X), truth


# What is learned from the simulated data, by all methods.


def learned_rows() -> list[dict[str, Any]]:
    """A row for each method, mechanism, scale and seed."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {tuple(row[k] for k in KEY) for row in rows}
    methods = {OURS: ours, **PEERS}
    for key in product(methods, SEMS, SCALES, range(SEEDS), (SAMPLES,)):
        if key in done:
            continue
        method, sem, scale, seed, samples = key
        X, truth = data_set(sem, seed, samples, scale)
        start = time.process_time()
        graph = methods[method](X, seed)
        seconds = round(time.process_time() - start, 3)
        found = {"learned": graph.astype(int).tolist(), "truth": truth.astype(int).tolist(), "seconds": seconds}
        rows.append({**dict(zip(KEY, key, strict=True)), **found, **environment()})
        with ROWS.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    return rows


def ours(X: Data, seed: int) -> Graph:
    return cvf.discover(X, progress=False).adjacency.numpy()


def comparison() -> list[str]:
    """Means over the seeds; ± is the standard error of the mean."""
    rows = learned_rows()
    lines = [
        "| data | method | SHD | SHD, open directions taken for right | F1 | CPU seconds, median |",
        "|" + "---|" * 6,
    ]
    for sem, scale, method in product(SEMS, SCALES, (OURS, *PEERS)):
        group = [r for r in rows if (r["sem"], r["data"], r["method"]) == (sem, scale, method)]
        graphs = [(torch.tensor(r["learned"]).bool(), torch.tensor(r["truth"]).bool()) for r in group]
        strict = [shd(once(learned, truth), truth) for learned, truth in graphs]
        favourable = [shd(settled(learned, truth), truth) for learned, truth in graphs]
        f1 = statistics.mean(edge_scores(settled(learned, truth), truth).f1 for learned, truth in graphs)
        seconds = statistics.median(r["seconds"] for r in group)
        lines.append(
            f"| {sem}, {scale} | {method} | {mean(strict)} | {mean(favourable)} | {f1:.2f} | {seconds:.2g} |"
        )
    return lines


def once(learned: Tensor, truth: Tensor) -> Tensor:
    """The graph with one direction of an open edge between nodes that are not joined: one error, not two."""
    return learned & ~(learned & learned.mT & ~(truth | truth.mT)).tril()


def settled(learned: Tensor, truth: Tensor) -> Tensor:
    """The graph with edges of open direction as in the truth, where that has one between the same nodes."""
    return torch.where(learned & learned.mT & (truth | truth.mT), truth, once(learned, truth))


def mean(values: list[int]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}"


def penalties() -> list[str]:
    """Mean SHD of the best graph under each penalty."""
    lines = [f"| data, n | {' | '.join(PENALTIES)} |", "|" + "---|" * (len(PENALTIES) + 1)]
    for sem, samples in (("mlp", 500), ("mlp", 2000), ("mlp", 8000), ("gp", 2000)):
        distances: dict[str, list[int]] = {name: [] for name in PENALTIES}
        for seed in range(SEEDS):
            X, truth = data_set(sem, seed, samples)
            local = LocalScores(standardise(torch.from_numpy(X)), 100, 0, lambda done: None)
            for name, penalty in PENALTIES.items():
                score = PenalisedScore(local, penalty(samples))
                best = ExhaustiveSearch(score, Limits(3, 0, 0)).ranking(1)[0]
                distances[name].append(shd(to_adjacency(best), torch.from_numpy(truth)))
        means = (f"{statistics.mean(values):.2f}" for values in distances.values())
        lines.append(f"| {sem}, {samples:,} | {' | '.join(means)} |")
    return lines


# Two and three variables, of which the truth is known by construction.


def pairs() -> dict[str, tuple[str, int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]]:
    """Name -> (is the direction identifiable in theory, number of seeds, (normal, normal) -> (x, y)) of x -> y."""

    def uniform(z: Tensor) -> Tensor:  # of variance 1
        return (torch.special.ndtr(z) - 0.5) * math.sqrt(12)

    def laplace(z: Tensor) -> Tensor:
        u = torch.special.ndtr(z) - 0.5
        return -u.sign() * torch.log1p(-2 * u.abs()) / math.sqrt(2)

    return {
        "y = x² + n": ("yes", 20, lambda x, n: (x, x**2 + n)),
        "y = tanh 2x + n / 2": ("yes", 20, lambda x, n: (x, torch.tanh(2 * x) + n / 2)),
        "y = x + x³ / 10 + n": ("yes", 20, lambda x, n: (x, x + x**3 / 10 + n)),
        "y = x / 2 + n": ("no", 100, lambda x, n: (x, x / 2 + n)),
        "y = 2 x + n": ("no", 100, lambda x, n: (x, 2 * x + n)),
        "y = x² + n, x and n uniform": ("yes", 20, lambda x, n: (uniform(x), uniform(x) ** 2 + uniform(n))),
        "y = x² + n, x and n Laplace": ("yes", 20, lambda x, n: (laplace(x), laplace(x) ** 2 + laplace(n))),
        "y = x + n, x and n uniform": (
            "not by a Gaussian",
            20,
            lambda x, n: (uniform(x), uniform(x) + uniform(n)),
        ),
        "y = x + n, x and n Laplace": (
            "not by a Gaussian",
            20,
            lambda x, n: (laplace(x), laplace(x) + laplace(n)),
        ),
    }


def directions() -> list[str]:
    """How often x -> y is found, and how often the direction is called identified, rightly or wrongly."""
    lines = [
        "| data | identifiable | x → y | y → x | identified, right | identified, wrong | margin / error |",
        "|" + "---|" * 7,
    ]
    for name, (identifiable, seeds, equation) in pairs().items():
        results = [
            cvf.discover(torch.stack(equation(*normal(2, seed)), 1), progress=False) for seed in range(seeds)
        ]
        right = sum(bool(r.adjacency[0, 1]) for r in results)
        turned = sum(bool(r.adjacency[1, 0]) for r in results)
        told, wrongly = (sum(bool(r.identified_edges[edge]) for r in results) for edge in ((0, 1), (1, 0)))
        ratios = [margin_ratio(r) for r in results]
        lines.append(
            f"| {name} | {identifiable} | {right} of {seeds} | {turned} | {told} | {wrongly} | "
            f"{min(ratios):.1f}, {statistics.median(ratios):.1f}, {max(ratios):.1f} |"
        )
    return lines


def margin_ratio(result: Discovery) -> float:
    return float((result.margins / result.standard_errors).nan_to_num(nan=0.0).max())


def normal(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, SAMPLES, generator=generator, dtype=torch.float64)


def linear_triples() -> list[str]:
    """Linear Gaussian SEMs of three variables: how many of the edges are called identified, rightly or wrongly."""
    systems: dict[str, Callable[[Tensor], Tensor]] = {
        "chain, 0 → 1 → 2": lambda n: torch.stack((n[0], n[0] + n[1], n[0] + n[1] + n[2]), 1),
        "collider, 0 → 1 ← 2": lambda n: torch.stack((n[0], n[0] + n[1] + n[2], n[2]), 1),
    }
    lines = ["| SEM | edges found | identified | of these wrong | graphs called identified |", "|" + "---|" * 5]
    truths = {"chain, 0 → 1 → 2": [(0, 1), (1, 2)], "collider, 0 → 1 ← 2": [(0, 1), (2, 1)]}
    for name, system in systems.items():
        results = [cvf.discover(system(normal(3, seed)), progress=False) for seed in range(50)]
        found = sum(int(r.adjacency.sum()) for r in results)
        told = [edge for r in results for edge in map(tuple, r.identified_edges.nonzero().tolist())]
        wrong = sum(edge not in truths[name] for edge in told)
        whole = sum(r.identified for r in results)
        lines.append(f"| {name} | {found} | {len(told)} | {wrong} | {whole} of {len(results)} |")
    return lines


def linear_trees() -> list[str]:
    """Linear Gaussian trees, of which no direction can be told, in the search over orders."""
    lines = ["| tree | samples | edges found | identified |", "|" + "---|" * 4]
    for name, d, samples in (("chain of 6", 6, 2000), ("chain of 8", 8, 1000), ("any tree of 7", 7, 600)):
        results = [
            cvf.discover(tree(d, samples, seed, chain="chain" in name), progress=False) for seed in range(10)
        ]
        found = sum(int(r.adjacency.sum()) for r in results)
        told = sum(int(r.identified_edges.sum()) for r in results)
        lines.append(f"| {name} | {samples} | {found} | {told} |")
    return lines


def tree(d: int, samples: int, seed: int, *, chain: bool) -> Tensor:
    """(samples, d): each variable is its parent, the one before it or one of those, plus noise of variance 1."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(samples, d, generator=generator, dtype=torch.float64)
    for node in range(1, d):
        X[:, node] += X[:, node - 1 if chain else int(torch.randint(node, (), generator=generator))]
    return X


def heavy_tails() -> list[str]:
    """Lognormal causes and noise, where the model has Gaussian noise: y = f(x) + n."""
    lines = ["| f | x and n | x → y | y → x | identified, right | identified, wrong |", "|" + "---|" * 6]
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "x": lambda x: x,
        "2 tanh(2 x)": lambda x: 2 * torch.tanh(2 * x),
    }
    for (name, function), centred in product(functions.items(), (True, False)):
        counts = [0, 0, 0, 0]
        for seed in range(SEEDS):
            draws = normal(2, seed).exp()
            if centred:
                draws = (draws - draws.mean(1, keepdim=True)) / draws.std(1, keepdim=True)
            result = cvf.discover(torch.stack((draws[0], function(draws[0]) + draws[1]), 1), progress=False)
            for k, graph in enumerate((result.adjacency, result.identified_edges)):
                counts[2 * k] += int(graph[0, 1])
                counts[2 * k + 1] += int(graph[1, 0])
        scale = "mean 0, variance 1" if centred else "above 0"
        lines.append(f"| {name} | {scale} | {' | '.join(map(str, counts))} |")
    return lines


@functools.cache
def exhaustive(sem: str, seed: int) -> Discovery:
    return cvf.discover(data_set(sem, seed, SAMPLES)[0], progress=False)


def trust() -> list[str]:
    """Of the edges between nodes that are joined in truth, how many point the right way."""
    lines = ["| data | identified: edges, right | not identified: edges, right |", "|---|---|---|"]
    for sem in SEMS:
        counts = {True: [0, 0], False: [0, 0]}
        for seed in range(SEEDS):
            truth, result = data_set(sem, seed, SAMPLES)[1], exhaustive(sem, seed)
            for i, j in result.adjacency.nonzero().tolist():
                if truth[i, j] or truth[j, i]:
                    count = counts[bool(result.identified_edges[i, j])]
                    count[0] += 1
                    count[1] += int(truth[i, j])
        lines.append(f"| {sem} | {counts[True][0]}, {counts[True][1]} | {counts[False][0]}, {counts[False][1]} |")
    return lines


def greedy() -> list[str]:
    """The search over orders against the exhaustive one, on the same four nodes."""
    lines = ["| data | same graph | SHD, exhaustive | SHD, orders | regressions of 32, mean |", "|" + "---|" * 5]
    for sem in SEMS:
        same = 0
        distances: tuple[list[int], list[int]] = ([], [])
        fits: list[int] = []
        for seed in range(SEEDS):
            X, truth = data_set(sem, seed, SAMPLES)
            pair = (exhaustive(sem, seed), cvf.discover(X, search="orders", progress=False))
            same += torch.equal(pair[0].adjacency, pair[1].adjacency)
            fits.append(pair[1].regressions)
            for kept, result in zip(distances, pair, strict=True):
                kept.append(shd(result.adjacency, torch.from_numpy(truth)))
        means = " | ".join(f"{statistics.mean(kept):.2f}" for kept in distances)
        lines.append(f"| {sem} | {same} of {SEEDS} | {means} | {statistics.mean(fits):.1f} |")
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "directions": directions,
    "triples": linear_triples,
    "trees": linear_trees,
    "heavy": heavy_tails,
    "comparison": comparison,
    "trust": trust,
    "greedy": greedy,
    "penalties": penalties,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="these tables")
    parser.add_argument("--again", action="store_true", help="learn the graphs of `discover` again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.again and ROWS.exists():
        kept = [line for line in ROWS.read_text().splitlines() if json.loads(line)["method"] != OURS]
        ROWS.write_text("".join(f"{line}\n" for line in kept))
    for name in arguments.only:
        lines = TABLES[name]()
        print("\n".join(lines), end="\n\n", flush=True)
        fill(PAGE, {name: lines})


if __name__ == "__main__":
    main()
