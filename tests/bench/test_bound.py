"""The bound: counts of flops and bytes against loops that do the arithmetic, one multiply-add after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import bench_ancestral_sample
import bench_gaussian_kl
import bench_mlp_sem_kl
import bench_pivot_kl
import bench_propagate
import bench_sem_kl
import pytest
import torch
from bound import Work, bound, full_pyramid, pyramid, stored, strict_triangle, triangle
from machine import Machine, Rates

from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

SIZES = (1, 2, 3, 5, 8)
F32 = torch.float32


def lower(d: int, *, strict: bool = False) -> Iterator[tuple[int, int]]:
    """Places of a lower triangle."""
    return ((i, j) for i in range(d) for j in range(i if strict else i + 1))


@pytest.mark.parametrize("d", SIZES)
def test_triangles_and_pyramids(d: int) -> None:
    triples = list(itertools.product(range(d), repeat=3))
    assert strict_triangle(d) == len(list(lower(d, strict=True)))
    assert triangle(d) == len(list(lower(d)))
    assert pyramid(d) == sum(j <= k < i for i, j, k in triples)
    assert full_pyramid(d) == sum(j <= k <= i for i, j, k in triples)
    assert stored("dense", d) == d * d
    assert stored("packed", d) == triangle(d)


def sem_kl_full(A: torch.Tensor, L: torch.Tensor, r: torch.Tensor, m: torch.Tensor, c: torch.Tensor) -> tuple:
    """|M|^2 weighted by c, dA, dL without the part of the determinant, dm, and flops of value and of gradients."""
    d = len(A)
    flops = {"value": 0, "gradients": 0}
    M, dA, dL = L.clone(), A.new_zeros(d, d), A.new_zeros(d, d)
    norms, dm = A.new_zeros(d), c * r
    for i, j in lower(d):
        for k in range(j, i):  # M = W L
            M[i, j] -= A[i, k] * L[k, j]
            flops["value"] += 2
        norms[i] += M[i, j] ** 2
        flops["value"] += 2
    for _ in lower(d, strict=True):  # the residual, which is given here
        flops["value"] += 2
    scaled = M * c[:, None]
    flops["gradients"] += triangle(d)
    for i, j in lower(d):
        dL[i, j] = scaled[i, j]
        for k in range(i + 1, d):  # W^T D^-1 M
            dL[i, j] -= A[k, i] * scaled[k, j]
            flops["gradients"] += 2
    for i, j in lower(d, strict=True):
        for k in range(j + 1):  # D^-1 M L^T
            dA[i, j] -= scaled[i, k] * L[j, k]
            flops["gradients"] += 2
        dA[i, j] -= c[i] * r[i] * m[j]
        dm[j] -= A[i, j] * (c * r)[i]
        flops["gradients"] += 4
    return (c * norms).sum(), dA, dL, dm, flops


def test_the_loops_compute_the_kl() -> None:
    """So that what they count is the op, and not something else with as many flops."""
    d = 5
    A, L = torch.randn(d, d).tril(-1).double(), torch.randn(d, d).tril(-1).double() + torch.eye(d)
    b, m, log_sigma = torch.randn(d).double(), torch.randn(d).double(), torch.randn(d).double()
    leaves = [t.clone().requires_grad_() for t in (A[None], b[None], log_sigma, m[None], L[None])]
    value = sem_kl_reference(*leaves).sum()
    grads = torch.autograd.grad(value, leaves)
    c, r = torch.exp(-2 * log_sigma), m - A @ m - b
    trace, dA, dL, dm, _ = sem_kl_full(A, L, r, m, c)
    log_det = L.diagonal().log().sum()
    torch.testing.assert_close(value, 0.5 * (trace + (c * r * r).sum() - d) + log_sigma.sum() - log_det)
    torch.testing.assert_close(dA, grads[0][0])
    torch.testing.assert_close(dL - L.diagonal().reciprocal().diag(), grads[4][0].tril())
    torch.testing.assert_close(dm, grads[3][0])


@pytest.mark.parametrize("jac", ["per_sample", "shared"])
@pytest.mark.parametrize("d", SIZES)
def test_sem_kl_of_full_posteriors(d: int, jac: str) -> None:
    B = 3
    *_, flops = sem_kl_full(*(torch.rand(d, d).tril() for _ in range(2)), *torch.rand(3, d))
    forward = bench_sem_kl.work(bench_sem_kl.Case(B, d, "full", "forward", F32, jac))
    both = bench_sem_kl.work(bench_sem_kl.Case(B, d, "full", "forward+backward", F32, jac))
    assert forward.flops == B * flops["value"]
    assert both.flops == B * (flops["value"] + flops["gradients"])

    matrices = 1 if jac == "shared" else B
    read = matrices * sum(1 for _ in lower(d, strict=True)) + B * sum(1 for _ in lower(d))
    read += B * d + d + B * d  # offset, log_sigma, loc
    assert (forward.read, forward.written) == (read, 1)
    gradients = (matrices * d * d, B * d, d, B * d, B * d * d)
    assert (both.read, both.written) == (read, 1 + sum(gradients))
    packed = bench_sem_kl.work(bench_sem_kl.Case(B, d, "full", "forward+backward", F32, jac, "packed"))
    assert both.written - packed.written == (matrices + B) * (d * d - triangle(d))


def test_sem_kl_of_full_posteriors_is_three_triangular_products() -> None:
    work = bench_sem_kl.work(bench_sem_kl.Case(7, 1000, "full", "forward+backward", F32))
    assert work.flops == pytest.approx(7 * 1000**3, rel=1e-2)


@pytest.mark.parametrize("d", SIZES)
def test_sem_kl_of_diagonal_posteriors(d: int) -> None:
    """Counts the operations of each A_ij in the order of the docstring of `work`."""
    B, entries = 3, strict_triangle(d)
    value = ("A A", "+= A^2 s^2", "r -= A m")
    both = ("p = A s^2", "|M|^2 += p A", "r -= A m", "q = A c", "n += q A", "dm -= A u", "u m", "c p - u m")

    def flops(operations: tuple[str, ...]) -> int:
        return sum(2 if any(sign in text for sign in ("+=", "-=", " - ")) else 1 for text in operations)

    case = bench_sem_kl.Case(B, d, "diagonal", "forward", F32)
    assert bench_sem_kl.work(case).flops == B * entries * flops(value)
    assert bench_sem_kl.work(case).read == B * entries + 2 * B * d + d + B * d
    case = case._replace(mode="forward+backward")
    assert bench_sem_kl.work(case).flops == B * entries * flops(both)
    assert bench_sem_kl.work(case).written == 1 + B * d * d + 2 * B * d + d + B * d


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("d", SIZES)
def test_mlp_sem_kl(d: int, posterior: str) -> None:
    """The products of the networks, and on the Jacobians what `sem_kl` does with each, which nobody moves."""
    B, h = 3, 4
    flops = {"forward": 0, "forward+backward": 0}
    for _ in lower(d, strict=True):
        for _ in range(h):
            flops["forward"] += 1  # U m
            flops["forward+backward"] += 1 + 1 + 2  # U m, dU = m d(U m), dm += U d(U m)
            flops["forward"] += B * 2 * 2  # pre += U z, J += w U
            flops["forward+backward"] += B * 2 * 6  # those, H += dJ U, dz += U dpre, d(U m) += w dJ, += dpre z
    own = (h + 1) * strict_triangle(d) + 2 * h * d + 2 * d  # w_in and edges, b_in and w_out, b_out and log_sigma
    factor = B * (d if posterior == "diagonal" else triangle(d))
    for mode, counted in flops.items():
        work = bench_mlp_sem_kl.work(bench_mlp_sem_kl.Case(B, d, h, posterior, mode, F32))
        inner = bench_sem_kl.work(bench_sem_kl.Case(B, d, posterior, mode, F32))
        assert work.flops == counted + inner.flops
        assert work.read == own + 2 * B * d + factor
    full = d * h * d + d * d + 2 * h * d + 2 * d
    assert work.written == 1 + full + 2 * B * d + (B * d if posterior == "diagonal" else B * d * d)


@pytest.mark.parametrize("jac", ["per_sample", "shared"])
@pytest.mark.parametrize("d", SIZES)
def test_propagate(d: int, jac: str) -> None:
    B = 3
    matrices = 1 if jac == "shared" else B
    forward = bench_propagate.work(bench_propagate.Case(B, d, jac, "forward", F32))
    both = bench_propagate.work(bench_propagate.Case(B, d, jac, "forward+backward", F32))
    S = sum(2 for i, j in lower(d) for _ in range(j, i))
    Y = sum(2 for i, j in lower(d) for _ in range(i + 1, d))
    dA = sum(2 for i, j in lower(d, strict=True) for _ in range(j + 1))
    vectors = 2 * strict_triangle(d)  # m, y, and y m^T alike
    assert forward.flops == matrices * S + B * vectors
    assert both.flops == matrices * (S + Y + dA) + 3 * B * vectors
    assert (forward.read, forward.written) == (matrices * strict_triangle(d) + B * d + d, matrices * d * d + B * d)
    assert both.read - forward.read == matrices * triangle(d) + B * d
    assert both.written - forward.written == matrices * d * d + B * d + d


@pytest.mark.parametrize("d", SIZES)
def test_gaussian_kl(d: int) -> None:
    B = 3

    def flops(given: str, mode: str) -> float:
        return bench_gaussian_kl.work(bench_gaussian_kl.Case(B, d, given, mode, F32)).flops / B

    solve = sum(2 * (i - j) + 1 for i, j in lower(d))
    value = solve + 2 * triangle(d) + 2 * strict_triangle(d)
    assert flops("scale_tril", "forward") == value
    adjoint = sum(2 * (d - 1 - i) + 1 for i, j in lower(d))
    product = sum(2 * (j + 1) for i, j in lower(d))  # with N^T
    vectors = 2 * strict_triangle(d) + 2 * triangle(d)
    assert flops("scale_tril", "forward+backward") == value + adjoint + product + vectors

    cholesky = sum(2 * j for i, j in lower(d))
    assert flops("covariance_matrix", "forward") == value + 2 * cholesky
    inverses = 2 * sum(2 * (i - j) for i, j in lower(d))
    squares = 2 * sum(2 * (d - i) for i, j in lower(d))  # X^T X of the inverses
    around = sum(2 * (d - j) for i, j in lower(d)) + sum(2 * (d - i) for i, j in lower(d))
    more = inverses + squares + product + around + vectors
    assert flops("covariance_matrix", "forward+backward") == value + 2 * cholesky + more


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("reduce", ["none", "min", "logsumexp"])
def test_pivot_kl_of_one_pivot_and_one_sample_is_sem_kl(posterior: str, reduce: str) -> None:
    """Nothing can be saved by sharing, so what is counted is as much to the leading order, and no less."""
    d = 400
    sem = bench_sem_kl.work(bench_sem_kl.Case(1, d, posterior, "forward", F32, "shared"))
    pivot = bench_pivot_kl.work(bench_pivot_kl.Case(1, 1, d, posterior, reduce, "forward", F32))
    assert (pivot.read, pivot.written) == (sem.read, sem.written)
    assert pivot.flops == sem.flops


def test_pivot_kl_of_many_pairs() -> None:
    """A pyramid for each pair, and in the gradients none but for each sample and each pivot."""
    B, K, d = 100, 100, 30

    def flops(mode: str, reduce: str = "none") -> float:
        return bench_pivot_kl.work(bench_pivot_kl.Case(B, K, d, "full", reduce, mode, F32)).flops

    pairs = 2 * B * K * (pyramid(d) + triangle(d) + strict_triangle(d))
    assert flops("forward") == pairs
    assert flops("forward+backward") - pairs < 0.5 * pairs
    assert flops("forward+backward", "min") < flops("forward+backward", "logsumexp")


@pytest.mark.parametrize("jac", ["per_sample", "shared"])
@pytest.mark.parametrize("kind", ["linear", "quadratic"])
def test_ancestral_sample(kind: str, jac: str) -> None:
    """Averages over which rows are replaced: a row is needed with the probability that it is not."""
    N, d, matrices = 10, 4, 2 if kind == "quadratic" else 1
    kept = 1 - bench_ancestral_sample.REPLACED
    entries = sum(kept * i for i in range(d)) * matrices * N
    forward = bench_ancestral_sample.work(bench_ancestral_sample.Case(N, d, kind, jac, "forward", F32))
    both = bench_ancestral_sample.work(bench_ancestral_sample.Case(N, d, kind, jac, "forward+backward", F32))
    assert forward.flops == pytest.approx(2 * entries)
    assert both.flops == pytest.approx((6 if jac == "shared" else 5) * entries)
    stored_entries = matrices * strict_triangle(d) if jac == "shared" else entries
    assert forward.read == pytest.approx(stored_entries + d + N * d)
    assert forward.written == N * d


MACHINE = Machine(
    1, {"float32": 1e9, "float64": 5e8}, {1000: Rates(100.0, 50.0, 120.0), 10000: Rates(20.0, 10.0, 25.0)}
)


def test_the_bound_is_the_larger_of_both() -> None:
    assert bound(Work(2e9, 1, 0), "float32", MACHINE) == (2.0, "flops")
    assert bound(Work(2e9, 1, 0), "float64", MACHINE) == (4.0, "flops")
    assert bound(Work(1, 100, 0), "float32", MACHINE) == (4.0, "bytes")  # 400 bytes read at 100 a second
    assert bound(Work(1, 0, 100), "float32", MACHINE) == (8.0, "bytes")  # written at 50
    assert bound(Work(1, 100, 50), "float32", MACHINE) == (5.0, "bytes")  # both, 600 at 120
    assert bound(Work(1, 100, 0), "float64", MACHINE) == (8.0, "bytes")


def test_the_working_set_decides_about_the_bandwidth() -> None:
    assert MACHINE.rates_of(10).read == 100.0
    assert MACHINE.rates_of(9999).read == 100.0  # that of the next smaller one, which is no slower
    assert MACHINE.rates_of(10000).read == 20.0
    assert bound(Work(1, 2500, 0), "float32", MACHINE).seconds == 10000 / 20.0


def test_noise_at_a_small_working_set_lowers_no_bound() -> None:
    noisy = MACHINE._replace(rates={1000: Rates(1.0, 1.0, 1.0), 10000: Rates(20.0, 10.0, 25.0)})
    assert noisy.rates_of(1000) == Rates(20.0, 10.0, 25.0)
