"""Linear assignment: rows to columns, one to one, with the least total cost."""

import torch
from torch import Tensor


def assign(cost: Tensor) -> list[int]:
    """The column of each row, all different, that makes the sum of `cost` (rows, columns) least.

    The shortest augmenting path is found for one row after another, in O(rows^2 columns). There must be at least
    as many columns as rows, and all costs must be finite.

    Source: Jonker and Volgenant, A shortest augmenting path algorithm for dense and sparse linear assignment
    problems (1987).
    """
    rows, columns = cost.shape
    of_column = [-1] * columns  # the row that has it
    u = cost.new_zeros(rows)  # prices, with cost - u - v >= 0 and equal to 0 where assigned
    v = cost.new_zeros(columns)
    for start in range(rows):
        reached_from = [start] * columns  # the row from which a column is reached on the shortest path
        length = cost[start] - u[start] - v
        done = torch.zeros(columns, dtype=torch.bool, device=cost.device)
        while True:
            column = int(length.where(~done, torch.inf).argmin())
            row = of_column[column]
            if row < 0:
                break
            done[column] = True
            through = length[column] + cost[row] - u[row] - v
            shorter = ~done & (through < length)
            for j in shorter.nonzero().flatten().tolist():
                reached_from[j] = row
            length = length.where(~shorter, through)
        shortest = length[column]
        u[start] += shortest
        for j in done.nonzero().flatten().tolist():
            u[of_column[j]] += shortest - length[j]
            v[j] -= shortest - length[j]
        while True:
            row = reached_from[column]
            previous = of_column.index(row) if row != start else -1
            of_column[column] = row
            if row == start:
                break
            column = previous
    result = [-1] * rows
    for column, row in enumerate(of_column):
        if row >= 0:
            result[row] = column
    return result
