"""The shortest time that a case can take on this machine: what must be computed, and what must be moved.

Each bench file counts both for its cases, in a function `work`, by these rules:

- **Flops** are those of the equations in the op's README, with triangles as triangles: a product of two lower
  triangular (d, d) matrices has about d^3 / 6 multiply-adds, where a dense product has d^3. Every product that
  goes into a sum is a multiply-add and counts as two flops; one that stands alone counts as one (and takes as
  long, so that the bound can only be too short). What is of order d for a sample, or for a sample and a pivot,
  is left out, logarithms among it. Algorithms of Strassen's kind are not considered, nor formulas that lose
  accuracy.
- **Bytes** are the inputs that are needed, read once, and the results, written once: of a matrix that the op
  reads as a triangle that triangle alone, of a dense gradient all of it, since somebody has to write its zeros.
  What the batch shares is counted once. Nothing in between counts: a kernel that keeps it in registers does not
  pay for it.

The bound is the larger of flops over the measured peak and of bytes over the measured bandwidth at a working set
as large as these bytes. The bandwidth's part is itself the largest of three: reads at the rate of reading,
writes at the rate of writing, and both together at the best rate of any mixture. Each of them is a lower bound,
so no row can pass 100 % but by errors of the measurement. Arithmetic and memory are taken to overlap perfectly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from machine import Machine


class Work(NamedTuple):
    """What one call must do."""

    flops: float
    read: float  # numbers, not bytes, since they do not depend on the dtype
    written: float


class Bound(NamedTuple):
    seconds: float
    limit: str  # "flops" or "bytes": which of the two is the larger

    def columns(self, seconds: float) -> dict[str, Any]:
        """What a row of results says about a call that took so long."""
        return {
            "bound_ms": float(f"{1e3 * self.seconds:.4g}"),
            "fraction_of_bound": float(f"{self.seconds / seconds:.4g}"),
            "limit": self.limit,
        }


def bound(work: Work, dtype: str, machine: Machine) -> Bound:
    size = {"float32": 4, "float64": 8}[dtype]
    read, written = size * work.read, size * work.written
    rates = machine.rates_of(read + written)
    compute = work.flops / machine.flops[dtype]
    move = max(read / rates.read, written / rates.write, (read + written) / rates.best)
    return Bound(compute, "flops") if compute > move else Bound(move, "bytes")


def strict_triangle(d: int) -> int:
    """Elements below the diagonal, or of a triangle without its diagonal."""
    return d * (d - 1) // 2


def triangle(d: int) -> int:
    return d * (d + 1) // 2


def pyramid(d: int) -> int:
    """Triples j <= k < i: multiply-adds of W L, W^-1 L and, on and below the diagonal, W^T L, with W unit lower
    triangular and L lower triangular, and of a Cholesky factorisation.
    """
    return (d**3 - d) // 6


def full_pyramid(d: int) -> int:
    """Triples j <= k <= i: multiply-adds of L N and, on and below the diagonal, of L N^T, of lower triangles."""
    return d * (d + 1) * (d + 2) // 6


def stored(layout: str, d: int) -> int:
    """Elements of a lower triangular matrix, and of its gradient, as it lies in memory."""
    return {"dense": d * d, "packed": triangle(d)}[layout]
