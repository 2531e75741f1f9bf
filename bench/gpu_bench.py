"""Times of the CUDA kernels against plain PyTorch, on a GPU: CUDA events, a cold second-level cache, medians.

    python bench/gpu_bench.py --out gpu.jsonl
    python bench/gpu_bench.py --device cpu --rounds 2      # the same calls on the CPU, to try the script

Contenders take turns in each round, so that ratios are of the same moment. One whose values or gradients are not
those of the reference in float64 is not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / "tests" / "ops"):
    sys.path.insert(0, str(folder))

from gaussian_inputs import gaussian_case  # noqa: E402
from inputs import sem_inputs  # noqa: E402
from mlp_inputs import mlp_inputs  # noqa: E402
from tolerances import PEER  # noqa: E402

from causalvae_fast.ops._fused import FusedOp  # noqa: E402
from causalvae_fast.ops.ancestral_sample.autograd import linear_op, mlp_ops  # noqa: E402
from causalvae_fast.ops.gaussian_kl.autograd import gaussian_kl_ops  # noqa: E402
from causalvae_fast.ops.propagate.autograd import propagate_op  # noqa: E402

SHAPES = ((100, 5), (1024, 16), (1024, 64), (256, 128), (16, 512))
L2_BYTES = 128 * 2**20  # more than any second-level cache


class Problem(NamedTuple):
    name: str
    op: FusedOp
    inputs: tuple[Tensor, ...]
    peers: dict[str, Callable[..., Any]]


def problems(batch: int, d: int) -> Iterator[Problem]:
    f32 = torch.float32
    for jac in ("per_sample", "shared"):
        sem = sem_inputs(batch, d, "diagonal", jac, dtype=f32)
        yield Problem(f"propagate, jac {jac}", propagate_op, tuple(sem[:3]), {})
        do = torch.zeros(d, dtype=torch.bool), torch.zeros(d)
        inputs = (sem.loc, sem.jac, torch.zeros(d), *do)
        yield Problem(f"ancestral_sample, jac {jac}", linear_op, inputs, {})
    mlp = mlp_inputs(batch, d, 16, "shared", f32)
    yield Problem("mlp_ancestral_sample, tanh, h 16", mlp_ops["tanh"], tuple(mlp), {})
    for given in ("scale_tril", "covariance_matrix"):
        case = gaussian_case(batch, d, (given, given), dtype=f32)

        def by_distributions(*t: Tensor, given: str = given) -> Tensor:
            q, p = (
                MultivariateNormal(loc, **{given: m.tril() if given == "scale_tril" else m.tril() + m.tril(-1).mT})
                for loc, m in ((t[0], t[2]), (t[1], t[3]))
            )
            return kl_divergence(q, p)

        name = f"gaussian_kl, by {given}"
        yield Problem(name, gaussian_kl_ops[given, given], case.inputs, {"torch.distributions": by_distributions})


def run(function: Callable[..., Any], inputs: tuple[Tensor, ...], gradients: bool) -> list[Tensor]:
    with torch.set_grad_enabled(gradients):
        outputs = function(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    wanted = [t for t in inputs if t.requires_grad]
    if not gradients:
        return list(outputs)
    found = torch.autograd.grad(outputs, wanted, [torch.ones_like(o) for o in outputs], materialize_grads=True)
    return [*(o.detach() for o in outputs), *found]


def is_right(found: list[Tensor], expected: list[Tensor]) -> bool:
    """To the tolerance of peers, relative to the largest element."""
    return all(
        bool((a.double().cpu() - b).abs().max() <= PEER[torch.float32] * b.abs().max().clamp_min(1e-30))
        for a, b in zip(found, expected, strict=True)
    )


class Timer:
    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.flush = torch.empty(L2_BYTES if self.on_gpu else 1, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], Any]) -> float:
        """Milliseconds."""
        self.flush.zero_()
        if not self.on_gpu:
            start = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - start)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))


def rows(problem: Problem, device: str, rounds: int) -> Iterator[dict[str, Any]]:
    inputs = tuple(t.to(device).requires_grad_(t.is_floating_point()) for t in problem.inputs)
    exact = tuple(t.double() if t.is_floating_point() else t for t in problem.inputs)
    exact = tuple(t.requires_grad_(t.is_floating_point()) for t in exact)
    ours = "cuda" if device == "cuda" else "cpu"
    contenders = {
        ours: lambda *t: problem.op(*t, backend=ours),
        "reference": problem.op.reference,
        **problem.peers,
    }
    timer = Timer(device)
    for gradients in (False, True):
        expected = run(problem.op.reference, exact, gradients)
        right = {n: f for n, f in contenders.items() if is_right(run(f, inputs, gradients), expected)}
        times: dict[str, list[float]] = {name: [] for name in right}
        for _ in range(rounds):
            for name, function in right.items():
                times[name].append(timer(partial(run, function, inputs, gradients)))
        for name in contenders:
            median = statistics.median(times[name]) if name in times else None
            yield {
                "op": problem.name,
                "mode": "with gradients" if gradients else "value",
                "contender": name,
                "median_ms": median,
                "least_ms": min(times[name]) if name in times else None,
                "right": name in times,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="rows as JSON lines")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=110, help="no shape is begun after these")
    options = parser.parse_args()
    device_name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"{device_name}, torch {torch.__version__}, float32, milliseconds")
    start, written = time.perf_counter(), []
    for batch, d in SHAPES:
        for problem in problems(batch, d):
            if time.perf_counter() - start > options.seconds:
                print(f"{batch} x {d}  {problem.name}: left out, there is no time")
                continue
            for row in rows(problem, options.device, options.rounds):
                row |= {"batch": batch, "d": d, "device": device_name, "torch": torch.__version__}
                written.append(row)
                time_or_cause = f"{row['median_ms']:10.4f}" if row["right"] else "     WRONG"
                print(
                    f"{batch} x {d}  {row['op']:36} {row['mode']:15} {row['contender']:20} {time_or_cause}",
                    flush=True,
                )
    if options.out is not None:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in written))
    if not all(row["right"] for row in written):
        sys.exit("a contender is wrong")


if __name__ == "__main__":
    main()
