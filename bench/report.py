"""From the rows in bench/results/ to tables, plots, and a list of the places where ours is slower than another.

    python bench/report.py                        # writes bench/results/report.md and bench/results/plots/
    python bench/report.py --readme README.md     # and what stands between the marks in the README

Of each case, the last row of each contender counts, for each device and number of threads. Times of different runs
are never divided by each other: a ratio is that of the contender's own row, to what was timed in turns with it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from records import BASELINE, KERNEL, OURS, RESULTS

Row = dict[str, Any]
Group = tuple[str, str, int, str]  # op, dtype, number of threads and device: what stands in one table

BEGIN, END = "<!-- bench/report.py: begin -->", "<!-- bench/report.py: end -->"
README_TABLE = ("sem_kl", "float32", 1)  # op, dtype, threads
README_MODE = "forward+backward"  # the other rows, and contenders, are in the report
README_OTHERS = {
    "formula": "formula, eager",
    "compiled_formula": "formula, torch.compile",
    "scale_tril": "torch.distributions",
    "jax": "JAX jit",
}

LABELS = {
    "ours": "ours",
    "ours_per_sample": "ours, then `.mean()`",
    "kernel": "kernel call",
    "formula": "formula, eager",
    "compiled_formula": "formula, torch.compile",
    "reference": "formula, eager",
    "compiled_reference": "formula, torch.compile",
    "scale_tril": "torch.distributions, scale_tril",
    "covariance_matrix": "torch.distributions, from covariance",
    "torch_distributions": "torch.distributions",
    "solve_triangular": "torch.linalg.solve_triangular",
    "inverse": "torch.linalg.inv",
    "einsum_sem_kl": "einsum Jacobian, sem_kl",
    "jacrev": "vmap(jacrev), formula",
    "loop_in_place": "loop, in place",
    "mechanism_loop": "loop, all of f for each node",
    "gpytorch": "GPyTorch",
    "jax": "JAX jit",
}
# What tells the cases of an op with one shape apart, beside mode and dtype.
VARIANTS = ("kind", "activation", "posterior", "given", "jac", "layout", "reduce")


def load(folder: Path = RESULTS) -> list[Row]:
    """The last row of each contender of each case."""
    rows: dict[tuple[Any, ...], Row] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            key = (row["op"], row["dtype"], row["threads"], row["device"], row["case"], row["contender"])
            rows.pop(key, None)  # so that the order is that of the last run
            rows[key] = row
    return list(rows.values())


def groups(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    found: dict[Group, list[Row]] = {}
    for row in rows:
        found.setdefault((row["op"], row["dtype"], row["threads"], row["device"]), []).append(row)
    return dict(sorted(found.items()))


def latents(row: Row) -> int:
    """d: the last of a shape, unless that is the number of hidden units of a network."""
    networks = row["op"] == "mlp_sem_kl" or row.get("kind") == "mlp"
    return int(row["shape"][-2 if networks else -1])


def cases(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """The contenders of each case, in the order of shapes and variants."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        key = latents(row), tuple(row["shape"]), variant(row), row["mode"]
        same = found.setdefault(key, {}).setdefault(row["contender"], row)
        assert same is row, f"{same['case']} and {row['case']} are told apart by nothing in VARIANTS"
    return dict(sorted(found.items()))


def plot_name(group: Group, kind: str) -> str:
    """The file of a plot: "sem_kl-float32-1-amd-epyc-time.png"."""
    return "-".join([*map(str, group[:3]), *re.findall("[a-z0-9]+", group[3].lower()), kind]) + ".png"


def variant(row: Row) -> str:
    """ "full, shared jac": what it is beside shape, mode and dtype."""
    named = {"jac": {"shared": "shared jac", "per_sample": ""}, "layout": {"dense": ""}}
    values = [named.get(name, {}).get(row[name], row[name]) for name in VARIANTS if name in row]
    return ", ".join(str(v).replace("_", " ") for v in values if v)


def table(rows: list[Row]) -> Iterator[str]:
    """Markdown, a row for each case: ours in ms, how near it is to the bound, how much longer others took."""
    found = cases(rows)
    present = {name for contenders in found.values() for name in contenders}
    others = [name for name in LABELS if name in present and name != BASELINE]
    others += sorted(present - set(LABELS))
    titles = ["case", "mode", "ours, ms", "of the bound", *(LABELS.get(name, name) for name in others)]
    titles += ["peak memory, MiB: ours", "least of others"]
    yield "| " + " | ".join(titles) + " |"
    yield "|---" * len(titles) + "|"
    for (_, shape, what, mode), contenders in found.items():
        ours = contenders.get(BASELINE)
        cells = [_case(shape, what), mode, *_own_cells(ours)]
        cells += [_ratio_cell(name, contenders.get(name)) for name in others]
        peaks = [r["peak_mib"] for n, r in contenders.items() if n not in OURS and r["peak_mib"] is not None]
        known = ours is not None and ours["peak_mib"] is not None
        cells += [f"{ours['peak_mib']:.3g}" if ours and known else "-", f"{min(peaks):.3g}" if peaks else "-"]
        yield "| " + " | ".join(cells) + " |"


def readme_table(rows: list[Row]) -> Iterator[str]:
    """As `table`, of one mode and a few contenders, whose cells say how many times longer they took."""
    titles = ["case", "ours, ms", "of the bound", *README_OTHERS.values()]
    yield "| " + " | ".join(titles) + " |"
    yield "|---" * len(titles) + "|"
    for (_, shape, what, _), contenders in cases(rows).items():
        ratios = [_ratio_cell(name, contenders.get(name)) for name in README_OTHERS]
        cells = [_case(shape, what), *_own_cells(contenders.get(BASELINE))]
        yield "| " + " | ".join(cells + [ratio if ratio == "-" else f"{ratio} x" for ratio in ratios]) + " |"


def _case(shape: Iterable[int], what: str) -> str:
    return " x ".join(map(str, shape)) + (f", {what}" if what else "")


def _own_cells(ours: Row | None) -> list[str]:
    """Time, and fraction of the bound."""
    if ours is None:
        return ["-", "-"]
    shown = f"{ours['median_ms']:.3g} ± {float(format(ours['iqr_ms'], '.1g')):g}"
    return [shown, f"{_fraction(ours)} ({ours['limit']})" if "limit" in ours else "-"]


def _ratio_cell(name: str, row: Row | None) -> str:
    if row is None:
        return "-"
    return f"{row['ratio']:.3g}" + (f" ({_fraction(row)})" if name == KERNEL and "limit" in row else "")


def _fraction(row: Row | None) -> str:
    if row is None or "fraction_of_bound" not in row:
        return "-"
    return f"{100 * row['fraction_of_bound']:.2g} %"


class Comparison(NamedTuple):
    """One of ours against another, at one case."""

    ours: Row
    other: Row
    ratio: float  # time of the other over that of ours
    spread: tuple[float, float] | None  # quartiles of it, where known

    @property
    def slower(self) -> bool:
        return self.ratio < 1

    def __str__(self) -> str:
        row, other = self.ours, LABELS.get(self.other["contender"], self.other["contender"])
        shape = " x ".join(map(str, row["shape"]))
        where = ", ".join(filter(None, (row["op"], shape, variant(row), row["mode"], row["dtype"])))
        threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        times = f"{row['median_ms']:.3g} ms, {1 / self.ratio:.3g} times the time of {other}"
        if self.spread and self.spread[1] >= 1:
            low, high = self.spread
            times += f" (within the spread: the other took {low:.2f} to {high:.2f} times as long, by quartiles)"
        return f"{where}, {threads}, {row['device'].rsplit(', ', 1)[-1]}: {times}"


def comparisons(rows: list[Row], ours: str, *, packages: bool) -> list[Comparison]:
    """All of one of ours with contenders of PyTorch, or with those of other packages."""
    found = []
    for group in groups(rows).values():
        for contenders in cases(group).values():
            own = contenders.get(ours)
            for name, other in contenders.items():
                if own is None or name in OURS or (name == "jax") != packages:
                    continue
                if ours == BASELINE:
                    low, high = other.get("ratio_quartiles", (None, None))
                    found.append(Comparison(own, other, other["ratio"], None if low is None else (low, high)))
                elif ours == KERNEL and "ratio_to_kernel" in other:
                    found.append(Comparison(own, other, other["ratio_to_kernel"], None))
                elif own["time"] == other["time"]:  # of one run, so that both ratios have the same base
                    found.append(Comparison(own, other, other["ratio"] / own["ratio"], None))
    return found


def slower_list(rows: list[Row]) -> Iterator[str]:
    """Markdown: where ours is slower than a contender. What was not compared is not said to be faster."""
    kinds = (
        ("Through autograd (`ours`) against contenders in PyTorch", BASELINE, False),
        ("The bare call (`kernel`) against JAX", KERNEL, True),
        (
            "Through autograd with `.mean()` after it (`ours_per_sample`) against contenders in PyTorch",
            OURS[1],
            False,
        ),
        ("Through autograd (`ours`) against JAX, which has no autograd to pay for", BASELINE, True),
    )
    for title, ours, packages in kinds:
        compared = comparisons(rows, ours, packages=packages)
        slower = sorted((c for c in compared if c.slower), key=lambda c: c.ratio)
        yield f"{title}, {len(compared)} comparisons:"
        yield ""
        if not compared:
            yield "- nothing was compared"
        elif not slower:
            yield "- nowhere"
        yield from (f"- {comparison}" for comparison in slower)
        yield ""


def described(rows: list[Row]) -> str:
    """What the rows of a table were measured on."""

    def values(name: str) -> str:
        return ", ".join(sorted({str(row[name]) for row in rows if name in row}))

    threads = "one thread" if values("threads") == "1" else f"{values('threads')} threads"
    versions = ", ".join(v for v in (f"torch {values('torch')}", values("package")) if v)
    return f"{values('device')}, {threads}, {values('dtype')}, {versions}, commit {values('commit')}"


EXPLAINED = (
    "Medians in ms of the value, or of value and gradients in all inputs, ± the interquartile range. The columns "
    "of others, and that of the bare kernel call, say how many times longer they took in the same rounds; "
    '"of the bound" is the time that the exact flops, or the bytes that must be moved, would take at the measured '
    "peak of this machine, over the time taken, in brackets for the kernel call; "
    "[bench/README.md](README.md) says how it is computed."
)

README_EXPLAINED = (
    "Medians in ms of value and gradients in all inputs, ± the interquartile range, and how many times longer "
    'others took in the same rounds; "of the bound" is the time that the exact flops, or the bytes that must be '
    "moved, would take at the measured peak of this machine, over the time taken: "
    "[bench/README.md](bench/README.md) says how it is computed."
)


def report(rows: list[Row], plots: list[Path], folder: Path) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Written by bench/report.py. " + EXPLAINED.replace("README.md)", "../README.md)"),
        "",
    ]
    lines += ["## Where ours is slower than a contender", "", *slower_list(rows)]
    for key, group in groups(rows).items():
        op, dtype, threads, _ = key
        lines += [f"## {op}, {dtype}, threads: {threads}", "", described(group), "", *table(group), ""]
        lines += [*_images(key, plots, folder), ""]
    return "\n".join(lines)


def _images(group: Group, plots: list[Path], folder: Path) -> list[str]:
    named = {path.name: path for path in plots}
    names = [plot_name(group, kind) for kind in ("time", "bound")]
    relative = [os.path.relpath(named[name], folder) for name in names if name in named]
    return [f"![{Path(path).stem}]({path})" for path in relative]


def readme_block(rows: list[Row], plots: list[Path], folder: Path) -> str:
    """What stands between the marks in the README: the table that was measured last, of those that are to stand
    there, its plots, and where ours is slower in all that was measured.
    """
    wanted = {key: group for key, group in groups(rows).items() if key[:3] == README_TABLE}
    if not wanted:
        raise ValueError(f"there are no rows of {README_TABLE}, which the README shows")
    key = max(wanted, key=lambda k: max(row["time"] for row in wanted[k]))
    lines = [
        f"`{key[0]}` on {described(wanted[key])}. {README_EXPLAINED}",
        "",
        *readme_table([row for row in wanted[key] if row["mode"] == README_MODE]),
        "",
        "All of it, other contenders and memory too, is in [bench/results/report.md](bench/results/report.md).",
        "",
        *_images(key, plots, folder),
        "",
    ]
    lines += ["Where ours is slower, in all that was measured:", "", *slower_list(rows)]
    return "\n".join(lines).rstrip()


def replace_block(text: str, block: str) -> str:
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the file has not one {BEGIN} and one {END}")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + block + "\n" + END + rest.split(END)[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Tables and plots of what the benchmarks measured.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the rows, and of the report")
    parser.add_argument("--readme", type=Path, help="a file whose part between the marks is written anew")
    parser.add_argument("--no-plots", action="store_true", help="draw none; show those that are there")
    options = parser.parse_args(arguments)
    rows = load(options.results)
    if not rows:
        parser.error(f"there are no rows in {options.results}: run the benchmarks first")
    plots = sorted((options.results / "plots").glob("*.png"))
    if not options.no_plots:
        from report_plots import draw  # matplotlib takes a second, and tables do not need it

        plots = draw(groups(rows), options.results / "plots")
    target = options.results / "report.md"
    target.write_text(report(rows, plots, options.results))
    print("\n".join(slower_list(rows)))
    print(f"wrote {target} and {len(plots)} plots")
    if options.readme:
        options.readme.write_text(
            replace_block(options.readme.read_text(), readme_block(rows, plots, options.readme.parent))
        )
        print(f"wrote the table in {options.readme}")


if __name__ == "__main__":
    main()
