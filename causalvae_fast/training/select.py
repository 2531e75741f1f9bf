"""The sparsest graph that keeps the best reconstruction, among the runs of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median, stdev
from typing import NamedTuple

from causalvae_fast.training.results import (
    FINISHED,
    Configuration,
    Record,
    accuracies,
    by_configuration,
    text_table,
)

_EDGES = "edges"
_STANDARD_ERRORS = 2.0


class SelectionError(ValueError):
    """No graph can be selected from these runs; the message says why and what to do."""


class Selection(NamedTuple):
    """What was selected, and by what."""

    run: Record
    configuration: Configuration
    kept: list[Configuration]
    """Those whose accuracies are within the tolerance of the best, the sparsest first."""
    left_out: list[Configuration]
    """Those with runs that are not finished."""
    tolerances: dict[str, float]
    """Of each accuracy."""


def select(records: Sequence[Record], by: Sequence[str] = (), tolerance: float | None = None) -> Selection:
    """The sparsest graph that keeps the best reconstruction.

    Runs that differ in their seed alone are one configuration, which competes if all its runs are finished, with
    the medians over its seeds. Kept are those whose accuracies, each of them, are within the tolerance of the
    best. Of these the one with the fewest edges is selected; of several, the one that falls least behind the best
    accuracies. Of its runs with no more edges than their median, the run that falls least behind stands for it.

    Args:
        records: the runs.
        by: names of metrics that are the larger the better; reconstruction and prediction by default.
        tolerance: how far below the best a median may be, in the unit of the metric. By default twice the standard
            error of the difference of two medians, 2 sqrt(2) sqrt(pi / 2) s / sqrt(n), for n seeds: what chance
            alone brings about in one case of twenty, where values are normal. s is the standard deviation over
            seeds, the median of those of the configurations, so that one in which seeds differ wildly does not
            open the gate for the others.

    Raises:
        SelectionError: if no configuration is finished, the runs have no number of edges or not the metrics `by`,
            there is one seed and no `tolerance`, or no configuration is close to the best in all of `by`.
    """
    configurations = by_configuration(records)
    whole = [c for c in configurations if all(run.state == FINISHED for run in c.runs)]
    left_out = [c for c in configurations if c not in whole]
    if not whole:
        raise SelectionError("no configuration has all its runs finished: go on with `causalvae-fast sweep`")
    names = list(by) or accuracies(records)
    lacking = [name for name in (_EDGES, *names) if any(name not in run.metrics for c in whole for run in c.runs)]
    if lacking or not names:
        known = ", ".join(whole[0].runs[0].metrics)
        raise SelectionError(
            f"the runs have no metric {', '.join(lacking) or 'of their reconstruction'}: there are {known}. "
            "A graph that is given, as that of the ovals, cannot be selected"
        )
    tolerances = {name: _chance(name, whole) if tolerance is None else tolerance for name in names}
    best = {name: max(c.median(name) for c in whole) for name in names}

    def behind(values: dict[str, float]) -> float:
        return max(best[name] - values[name] for name in names)

    kept = [c for c in whole if all(best[name] - c.median(name) <= tolerances[name] for name in names)]
    if not kept:
        raise SelectionError(
            f"no configuration is within the tolerance of the best in all of {', '.join(names)}: "
            "name one of them with --by, or a larger --tolerance"
        )
    kept.sort(key=lambda c: (c.median(_EDGES), behind({name: c.median(name) for name in names})))
    chosen = kept[0]
    sparse = [run for run in chosen.runs if run.metrics[_EDGES] <= chosen.median(_EDGES)]
    return Selection(min(sparse, key=lambda run: behind(run.metrics)), chosen, kept, left_out, tolerances)


def _chance(name: str, configurations: Sequence[Configuration]) -> float:
    """The difference of medians that chance alone brings about (`select`)."""
    spreads = [stdev(c.values(name)) for c in configurations if len(c.runs) > 1]
    if len(spreads) < len(configurations):
        raise SelectionError(
            "one seed does not say what chance alone brings about: give --tolerance, or more seeds"
        )
    seeds = min(len(c.runs) for c in configurations)
    return _STANDARD_ERRORS * math.sqrt(2) * math.sqrt(math.pi / 2) * median(spreads) / math.sqrt(seeds)


def selection_text(records: Sequence[Record], selection: Selection) -> str:
    """The configurations with their medians, what was kept, and what was selected, for people."""
    names = [_EDGES, *selection.tolerances]
    rows = []
    for configuration in by_configuration(records):
        if configuration == selection.configuration:
            verdict = "selected"
        elif configuration in selection.left_out:
            verdict = "not finished"
        else:
            verdict = "kept" if configuration in selection.kept else ""
        numbers = [f"{configuration.median(n):.4g}" if configuration.values(n) else "" for n in names]
        rows.append([configuration.text, str(len(configuration.runs)), *numbers, verdict])
    tolerances = ", ".join(f"{name} {value:.2g}" for name, value in selection.tolerances.items())
    return "\n".join(
        [
            text_table(["configuration", "seeds", *names, ""], rows),
            f"kept is what is, in medians over seeds, within a tolerance of the best: {tolerances}",
            f"selected is the sparsest of these: {selection.configuration.text}",
            str(selection.run.path),
        ]
    )
