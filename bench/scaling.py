"""How `sem_kl`, `mlp_sem_kl` and their contenders scale: time and peak memory for 4 to 4096 latents.

    python bench/scaling.py                    # writes bench/results/scaling.csv and two plots of each op
    python bench/scaling.py --plots-only
The batch shrinks as d grows. For `sem_kl`, B = max(1, 2^22 / d^2), so that a (B, d, d) tensor has 4 million
elements at every d up to 2048, and four times as many at 4096: what changes from point to point is the shape of
the work, not its inputs. The arithmetic of a full posterior is B d^3, and grows with d; that of a diagonal one
does not. For `mlp_sem_kl`, with a diagonal posterior and 16 hidden units, B = max(64, 2^20 / d^2): from d = 128 on
the batch stays what training needs, and the Jacobians that others store grow to 4 GiB.
Each contender runs in a process of its own, under a limit of memory, and stops at the first d where it fails or
a point takes longer than the time limit, compilation included. Contenders take turns at each d. Peak memory is
what a call adds to the resident memory, gradients included and inputs not. Rows are appended as they are
measured, and what the file has already is not measured again: an interrupted study goes on, and --fresh starts
over.
"""

from __future__ import annotations

import argparse
import csv
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import IO, Any, NamedTuple

import records
import torch
from peers import installed

CONTENDERS = {
    "sem_kl": (
        "ours",
        "kernel",
        "formula",
        "compiled_formula",
        "scale_tril",
        "covariance_matrix",
        "gpytorch",
        "jax",
    ),
    "mlp_sem_kl": ("ours", "kernel", "reference", "compiled_reference", "einsum_sem_kl", "jacrev", "jax"),
}
POSTERIORS = {"sem_kl": ("diagonal", "full"), "mlp_sem_kl": ("diagonal",)}
SIZES = tuple(2**k for k in range(2, 13))
WORK = {"sem_kl": 2**22, "mlp_sem_kl": 2**20}
LEAST_BATCH = {"sem_kl": 1, "mlp_sem_kl": 64}
KEY = ("op", "posterior", "mode", "dtype", "threads", "device", "contender", "d")
MEASURED = ("batch", "status", "median_ms", "iqr_ms", "rounds", "peak_mib", "value")
COLUMNS = (*KEY, *MEASURED, "time", "commit", "torch")

Row = dict[str, str]


def batch_of(op: str, d: int) -> int:
    return max(LEAST_BATCH[op], WORK[op] // d**2)


class Study(NamedTuple):
    """What all points have in common."""

    mode: str
    dtype: str
    threads: int
    seconds: float  # for each point
    limit: float  # seconds that a point may take
    memory_gib: float  # that a contender may use


class Worker:
    """A contender's process, which is started when it is first asked."""

    def __init__(self, op: str, contender: str, posterior: str, study: Study) -> None:
        options = {"op": op, "contender": contender, "posterior": posterior, **study._asdict()}
        self._op = op
        del options["limit"]
        named = [text for k, v in options.items() for text in (f"--{k.replace('_', '-')}", str(v))]
        self._command = [sys.executable, str(Path(__file__).with_name("scaling_worker.py")), *named]
        self._limit = study.limit
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()

    def point(self, d: int) -> dict[str, Any]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
            assert self._process.stdout
            threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"batch": batch_of(self._op, d), "d": d}) + "\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=self._limit)
        except queue.Empty:
            return {"status": f"over the limit of {self._limit:g} s"}
        except BrokenPipeError:
            answer = None
        if answer is None:
            return {"status": f"died: exit status {self._process.wait()}"}
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._answers.put(line)
        self._answers.put(None)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def points(
    study: Study, op: str, contenders: Sequence[str], sizes: Sequence[int], posteriors: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Contenders take turns at each d, so that what is compared is measured at about the same time."""
    common = {"mode": study.mode, "dtype": study.dtype, "threads": study.threads}
    common["device"] = records.environment()["device"]
    for posterior, d, contender in product(posteriors, sizes, contenders):
        named = {"op": op, "posterior": posterior, **common, "contender": contender, "d": d}
        yield {**named, "batch": batch_of(op, d)}


def run(study: Study, todo: list[dict[str, Any]], path: Path) -> None:
    """Measures what the file does not have, and appends it."""
    done = {key_of(row): row for row in read(path)}
    workers: dict[tuple[str, ...], Worker] = {}
    stopped = {key[:-1] for key, row in done.items() if row["status"] != "ok"}
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    print(f"{len(todo)} points, of which the file has {sum(key_of(point) in done for point in todo)}", flush=True)
    try:
        for number, point in enumerate(todo, 1):
            who = key_of(point)[:-1]
            if key_of(point) in done or who in stopped:
                continue
            op, posterior, contender = point["op"], point["posterior"], point["contender"]
            worker = workers.setdefault(who, Worker(op, contender, posterior, study))
            row = point | worker.point(point["d"])
            row |= {name: records.environment()[name] for name in ("commit", "torch")}
            row["time"] = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
            append(path, row)
            if row["status"] != "ok":
                stopped.add(who)
                worker.stop()
            shown = f"{row['median_ms']} ms, {row['peak_mib']} MiB" if row["status"] == "ok" else row["status"]
            elapsed = time.monotonic() - start
            print(
                f"[{number}/{len(todo)}, {elapsed / 60:.1f} min] {op}, {posterior}, d = {point['d']}, "
                f"{contender}: {shown}",
                flush=True,
            )
    finally:
        for worker in workers.values():
            worker.stop()


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main(arguments: list[str] | None = None) -> None:
    known = sorted({name for names in CONTENDERS.values() for name in names})
    parser = argparse.ArgumentParser(description="Time and memory of ops against the number of latents.")
    parser.add_argument("--ops", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--contenders", nargs="+", default=known, choices=known)
    parser.add_argument("--posteriors", nargs="+", default=["diagonal", "full"], choices=["diagonal", "full"])
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="values of d, ascending")
    parser.add_argument("--mode", default="forward+backward", choices=["forward", "forward+backward"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each point")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds that a point may take, all included")
    parser.add_argument("--memory-gib", type=float, default=8.0, help="memory that a contender may use")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "scaling.csv")
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--plots-only", action="store_true")
    options = parser.parse_args(arguments)
    for name in [name for name in options.contenders if not installed(name)]:
        print(f"{name} is not installed and left out")
        options.contenders.remove(name)
    if options.fresh:
        options.out.unlink(missing_ok=True)
    study = Study(*(getattr(options, name) for name in Study._fields))
    if not options.plots_only:
        torch.set_num_threads(study.threads)
        todo = []
        for op in options.ops:
            contenders = [name for name in CONTENDERS[op] if name in options.contenders]
            posteriors = [name for name in POSTERIORS[op] if name in options.posteriors]
            todo += points(study, op, contenders, sorted(options.sizes), posteriors)
        try:
            run(study, todo, options.out)
        except KeyboardInterrupt:
            print(f"interrupted; {options.out} keeps what was measured, and the same command goes on")
            raise SystemExit(130) from None
    from scaling_plots import draw  # matplotlib is not needed to measure

    for path in draw(read(options.out), options.out.parent):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
