"""The process of one contender in the scaling study: measures the points that it is told on its standard input.

A process of its own, so that a contender that runs out of memory or time takes nobody with it. For each line
{"batch": B, "d": d} it answers with one line, on what was its standard output before libraries could print to it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# Inputs and tolerances are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ops"))

import peers
import torch
from memory import peak_memory, use_one_heap

MIN_ROUNDS = 3
PATIENCE = 4.0  # seconds, after which a point has fewer rounds
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "RESOURCE_EXHAUSTED", "Out of memory")


HIDDEN = 16  # units of each node of mlp_sem_kl


def contenders_of(op: str, posterior: str, mode: str, dtype: torch.dtype, batch: int, d: int) -> Any:
    if op == "mlp_sem_kl":
        import bench_mlp_sem_kl

        case = bench_mlp_sem_kl.Case(batch, d, HIDDEN, posterior, mode, dtype)
        return bench_mlp_sem_kl.MLPSEMKLContenders(case)
    from bench_sem_kl import Case, SEMKLContenders

    return SEMKLContenders(Case(batch, d, posterior, mode, dtype))


def point(
    op: str, contender: str, posterior: str, mode: str, dtype: str, batch: int, d: int, seconds: float
) -> dict[str, Any]:
    """Time and peak memory of a call; for about `seconds`, and at least a few rounds unless one takes longer."""
    contenders = contenders_of(op, posterior, mode, getattr(torch, dtype), batch, d)
    call = contenders.build(contender)
    value = peers.as_tensor(call()[0]).double().mean().item()  # compiles, where there is something to compile
    times: list[float] = []
    while sum(times) < seconds or (len(times) < MIN_ROUNDS and sum(times) < PATIENCE):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    peak = peak_memory(call)
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {
        "status": "ok",
        "median_ms": f"{1e3 * quartiles[1]:.5g}",
        "iqr_ms": f"{1e3 * (quartiles[2] - quartiles[0]):.3g}",
        "rounds": len(times),
        "peak_mib": "" if peak is None else f"{peak / 2**20:.5g}",
        "value": f"{value:.9g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("op", "contender", "posterior", "mode", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--memory-gib", type=float, required=True)
    options = parser.parse_args()

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    limit = int(options.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    use_one_heap()
    peers.fix_threads(options.threads)
    torch.set_num_threads(options.threads)
    what = (options.op, options.contender, options.posterior, options.mode, options.dtype)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = point(*what, asked["batch"], asked["d"], options.seconds)
        except MemoryError:
            answer = {"status": "out of memory"}
        except Exception as error:  # whatever a contender fails with is a result of the study
            text = " ".join(f"{type(error).__name__}: {error}".split())
            out = any(sign in text for sign in OUT_OF_MEMORY)
            answer = {"status": "out of memory" if out else f"failed: {text[:120]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
