"""The Triton backend of `mlp_sem_kl`: which kernels are launched, with which tiles (README.md, "On a GPU")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from causalvae_fast.ops._outputs import Gradients
from causalvae_fast.ops._packed import packed_size
from causalvae_fast.ops._triton import Config, check_latents, dot_precision, without_gaps
from causalvae_fast.ops.mlp_sem_kl.triton_columns import columns_kernel, edges_kernel, weights_kernel
from causalvae_fast.ops.mlp_sem_kl.triton_rows import hidden_kernel, jacobian_kernel, rows_kernel
from causalvae_fast.ops.mlp_sem_kl.triton_units import spans_kernel, units_kernel
from causalvae_fast.ops.sem_kl.triton_kernel import sem_kl_triton

PROGRAMS = 528  # four for each multiprocessor of an H100: what sums are split into, at most
NODES = 8  # of a block whose sums over nodes are written, at least
SHARING = 4  # nodes that read the same samples in one program, at least
CHUNK = 1 << 24  # bytes of what is kept of a chunk of the batch: numbers of hidden units, or rows of Jacobians
SAMPLES = 16  # of a chunk, at least, so that tiles are not empty

PIVOT, W_IN, B_IN, W_OUT, B_OUT, EDGES, LOG_SIGMA, LOC, FACTOR = range(9)


def hidden_tile(hidden: int) -> int:
    """Units of a node that are taken at a time."""
    return 16 if hidden <= 16 else 32


def units_config(hidden: int, full: bool, dtype: torch.dtype) -> Config:
    """For the hidden units of N nodes."""
    H = hidden_tile(hidden)
    if dtype == torch.float64:
        return Config({"S": 32, "N": 32 // H, "H": H, "C": 16}, 4)
    return Config({"S": 32, "N": 64 // H, "H": H, "C": 16}, 4 if full else 8)


def rows_config(hidden: int, dtype: torch.dtype) -> Config:
    """For a row of the Jacobian of one node."""
    H = hidden_tile(hidden)
    if dtype == torch.float64:
        return Config({"S": 32, "H": H, "C": 16}, 4)
    return Config({"S": 64, "H": H, "C": 512 // H}, 4 if hidden <= H else 8)


def hidden_config(hidden: int, dtype: torch.dtype) -> Config:
    """For what one node's row of the gradient of the Jacobian passes to its units."""
    return rows_config(hidden, dtype)._replace(num_warps=8 if dtype == torch.float32 else 4)


def columns_config(hidden: int, dtype: torch.dtype) -> Config:
    """For a tile of columns, node by node."""
    size = 32 if dtype == torch.float32 else 16
    return Config({"S": 64 if dtype == torch.float32 else 32, "H": hidden_tile(hidden), "C": size}, 4)


def weights_config(hidden: int, full: bool, dtype: torch.dtype) -> Config:
    """For the gradients of some weights of a node, products over samples."""
    tiles = {"S": 32, "H": hidden_tile(hidden), "C": 32 if dtype == torch.float32 else 16}
    return Config(tiles, 8 if dtype == torch.float32 and (full or hidden > tiles["H"]) else 4)


def edges_config() -> Config:
    """For the gradients of some weights of one node."""
    return Config({"H": 16, "C": 64}, 4)


def mlp_sem_kl_triton(
    activation: str,
    pivot: Tensor,  # (B, d)
    w_in: Tensor,  # (d, h, d)
    b_in: Tensor,  # (d, h)
    w_out: Tensor,  # (d, h)
    b_out: Tensor,  # (d,)
    edges: Tensor,  # (d, d)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d), packed (B, P)
    *,
    packed_scale_tril: bool = False,  # P = d (d + 1) / 2 values for each matrix
    upstream: Tensor
    | str = "none",  # (B,): the gradient of the loss with respect to each KL; or of their "sum", "mean"
    wanted: Sequence[bool] = (False,) * 9,  # for each input: compute its gradient
) -> tuple[Tensor, Gradients]:
    """The KL of each sample, and in the same pass the gradients asked for, shaped as their inputs.

    Raises:
        ValueError: if d is larger than 32768.
    """
    check_latents(loc.shape[1])
    inputs = [pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor]
    with torch.cuda.device_of(loc):
        call = _Call(activation, inputs, packed_scale_tril, upstream, wanted)
        for first in range(0, loc.shape[0], call.chunk):
            call.launch(first)
        return call.result()


class _Passed(NamedTuple):
    """What is known of a chunk once gradients have passed through the hidden units."""

    a: Tensor  # (d, samples, h): w phi'(pre)
    c: Tensor  # (d, samples, h): w phi'' H
    df: Tensor  # (samples, d)
    grad_jac: Tensor | None  # (samples, P), for a full posterior


class _Call:
    """The tensors of one call, and the launches that fill them."""

    def __init__(
        self,
        activation: str,
        inputs: Sequence[Tensor],
        packed_tril: bool,
        upstream: Tensor | str,
        wanted: Sequence[bool],
    ) -> None:
        pivot, *parameters, loc, factor = inputs
        (self.batch, self.d), self.dtype, self.wanted = loc.shape, loc.dtype, wanted
        self.hidden = inputs[W_IN].shape[1]
        self.full, self.packed_tril = packed_tril or factor.dim() == 3, packed_tril
        self.pivot, self.loc = without_gaps(pivot, 1), without_gaps(loc, 1)
        self.factor = without_gaps(factor, factor.dim() - 1)
        parameters = [without_gaps(t, 1).contiguous() for t in parameters]
        self.w_in, self.b_in, self.w_out, self.b_out, self.edges, self.log_sigma = parameters
        self.weight = "given" if isinstance(upstream, Tensor) else upstream
        self.upstream = without_gaps(upstream, 0) if isinstance(upstream, Tensor) else None
        if not any(wanted):
            self.weight = "none"

        units = hidden_tile(self.hidden)
        self.activation = activation
        self.single = self.hidden <= units
        self.dot = dot_precision(self.dtype)
        self.units = units_config(self.hidden, self.full, self.dtype)
        self.rows = rows_config(self.hidden, self.dtype)
        self.columns, self.products = (
            columns_config(self.hidden, self.dtype),
            weights_config(self.hidden, self.full, self.dtype),
        )
        self.curved = activation != "leaky_relu"
        kept = max(self.d * self.hidden, packed_size(self.d) if self.full else 0) * self.dtype.itemsize
        self.chunk = max(SAMPLES, CHUNK // kept)
        self.spans = None if wanted[EDGES] else self.edges.new_empty(2, self.d, dtype=torch.int32)
        if self.spans is not None and self.batch > 0:
            spans_kernel[(self.d,)](self.edges, self.spans, self.d, C=64, num_warps=1, num_stages=1)

        of_units = any(wanted[k] for k in (B_IN, W_OUT, PIVOT, W_IN, EDGES))
        self.passes = of_units  # through the hidden units
        self.wants_rows = of_units or wanted[B_OUT] or wanted[LOG_SIGMA]
        self.wants_weights = wanted[W_IN] or wanted[EDGES]
        self.value = loc.new_empty(self.batch)
        self.own: dict[int, Tensor] = {}  # gradients that each sample has
        for k, like in ((PIVOT, pivot), (LOC, loc), (FACTOR, factor)):
            if wanted[k]:
                self.own[k] = torch.empty_like(like, memory_format=torch.contiguous_format)
        if PIVOT in self.own and activation == "leaky_relu":
            self.own[PIVOT].zero_()
        self.sums: list[Tensor] = []  # (2 d (h + 1),) of each chunk: gradients of w_out, b_in, b_out, log_sigma
        self.weights: Tensor | None = None  # (splits, d, h, d)

    def launch(self, first: int) -> None:
        """All that is done for one chunk of the batch."""
        part = slice(first, first + self.chunk)
        if self.full:
            self._full(part)
        else:
            self._diagonal(part)

    def result(self) -> tuple[Tensor, Gradients]:
        """Sums over parts are torch's: the same bits in every run."""
        d, hidden = self.d, self.hidden
        found: Gradients = [self.own.get(k) for k in range(9)]
        if self.wants_rows:
            sums = self.loc.new_zeros(2 * d * (hidden + 1)) if not self.sums else self.sums[0]
            for more in self.sums[1:]:
                sums = sums + more
            of_units, of_nodes = sums[: 2 * d * hidden].view(2, d, hidden), sums[2 * d * hidden :].view(2, d)
            named = {W_OUT: of_units[0], B_IN: of_units[1], B_OUT: of_nodes[0], LOG_SIGMA: of_nodes[1]}
            for k, gradient in named.items():
                found[k] = gradient.clone() if self.wanted[k] else None  # an op's outputs may share no memory
        if self.wants_weights:
            create = torch.empty_like if self.weights is not None else torch.zeros_like
            grad_w_in = create(self.w_in) if self.wanted[W_IN] else None
            grad_edges = create(self.edges) if self.wanted[EDGES] else None
            if self.weights is not None:
                config = edges_config()
                edges_kernel[(triton.cdiv(d, config.tiles["C"]), d)](
                    self.w_in, self.edges, self.spans, self.weights, grad_w_in, grad_edges,
                    d, hidden, len(self.weights), **config.options,
                )  # fmt: skip
            found[W_IN], found[EDGES] = grad_w_in, grad_edges
        return self.value, found

    def _diagonal(self, part: slice) -> None:
        scale, upstream = self.factor[part], self.upstream if self.upstream is None else self.upstream[part]
        samples, gradients = len(scale), self.weight != "none"
        pre, moved, residual = self._units(part, keeps_moved=gradients)
        value = self.loc.new_empty(samples, self.d)
        config = self.rows
        tiles = triton.cdiv(samples, config.tiles["S"])
        sums = self.loc.new_empty(tiles, 2 * self.d * (self.hidden + 1)) if gradients else None
        rows_kernel[(tiles, self.d)](
            self.w_in, self.w_out, self.edges, self.log_sigma, scale, upstream,
            scale.stride(0), _stride(upstream), self.spans, pre, moved, residual, value, sums,
            self.batch, self.d, self.hidden, samples,
            weight=self.weight, **self._options(config),
        )  # fmt: skip
        torch.sum(value, 1, out=self.value[part])
        if sums is not None:
            self.sums.append(sums.sum(0))
            assert moved is not None
            passed = _Passed(pre, moved, residual, None)
            self._columns(part, passed, scale, upstream)
            self._weights(part, passed, scale, upstream)

    def _full(self, part: slice) -> None:
        samples = len(self.loc[part])
        pre, _, offset = self._units(part, keeps_moved=False)
        config = self.rows
        tiles = triton.cdiv(samples, config.tiles["S"])
        jac = self.loc.new_empty(samples, packed_size(self.d))
        jacobian_kernel[(tiles, self.d)](
            self.w_in, self.w_out, self.edges, self.spans, pre, jac,
            self.d, self.hidden, samples, **self._options(config),
        )  # fmt: skip
        upstream: Tensor | str = "none"
        if self.weight != "none":
            one = 1 / self.batch if self.weight == "mean" else 1.0
            given = self.loc.new_full((1,), one).expand(self.batch) if self.upstream is None else self.upstream
            upstream = given[part]
        wants_df = self.passes or self.wanted[B_OUT]
        value, found = sem_kl_triton(
            jac, offset, self.log_sigma, self.loc[part] - self.pivot[part], self.factor[part],
            packed_jac=True, packed_scale_tril=self.packed_tril, upstream=upstream,
            wanted=(self.passes, wants_df, self.wanted[LOG_SIGMA], self.wanted[LOC], self.wanted[FACTOR]),
        )  # fmt: skip
        del jac
        grad_jac, df, of_log_sigma, of_loc, of_factor = found
        self.value[part] = value
        for k, gradient in ((LOC, of_loc), (FACTOR, of_factor)):
            if gradient is not None:
                self.own[k][part] = gradient
        if not self.wants_rows:
            return
        sums = self.loc.new_zeros(2 * self.d * (self.hidden + 1))
        if grad_jac is not None:
            config = hidden_config(self.hidden, self.dtype)
            parts, curved = self.loc.new_empty(tiles, len(sums)), torch.empty_like(pre)
            hidden_kernel[(tiles, self.d)](
                self.w_in, self.w_out, self.edges, self.spans, pre, curved, grad_jac, df, parts,
                self.d, self.hidden, samples, **self._options(config, "single"),
            )  # fmt: skip
            torch.sum(parts, 0, out=sums)
        elif df is not None:
            sums[-2 * self.d : -self.d] = df.sum(0)
        if of_log_sigma is not None:
            sums[-self.d :] = of_log_sigma
        self.sums.append(sums)
        if grad_jac is not None:
            assert df is not None
            passed = _Passed(pre, curved, df, grad_jac)
            self._columns(part, passed, None, None)
            self._weights(part, passed, None, None)

    def _units(self, part: slice, *, keeps_moved: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        pivot, loc, config = self.pivot[part], self.loc[part], self.units
        samples = len(loc)
        pre = loc.new_empty(self.d, samples, self.hidden)
        moved, residual = torch.empty_like(pre) if keeps_moved else None, loc.new_empty(samples, self.d)
        grid = (triton.cdiv(samples, config.tiles["S"]), triton.cdiv(self.d, config.tiles["N"]))
        units_kernel[grid](
            pivot, self.w_in, self.b_in, self.w_out, self.b_out, self.edges, loc, pivot.stride(0), loc.stride(0),
            self.spans, pre, moved, residual, self.d, self.hidden, samples,
            full=self.full, activation=self.activation, **config.options,
        )  # fmt: skip
        return pre, moved, residual

    def _columns(self, part: slice, passed: _Passed, scale: Tensor | None, upstream: Tensor | None) -> None:
        """Gradients that are sums over nodes."""
        summed = [k for k in ((PIVOT,) if self.full else (PIVOT, LOC, FACTOR)) if k in self.own]
        if not self.curved:
            summed = [k for k in summed if k != PIVOT]
        if not summed:
            return
        config, samples, d = self.columns, passed.df.shape[0], self.d
        tiles, columns = triton.cdiv(samples, config.tiles["S"]), triton.cdiv(d, config.tiles["C"])
        blocks, per_block = _blocks(d, max(1, min(triton.cdiv(d, NODES), PROGRAMS // (columns * tiles))))
        parts = {k: self.own[k][part] if blocks == 1 else self.loc.new_empty(blocks, samples, d) for k in summed}
        columns_kernel[(tiles, blocks, columns)](
            self.w_in, self.edges, self.log_sigma, scale, upstream, _stride(scale), _stride(upstream),
            self.spans, passed.a, passed.c, passed.df, parts.get(PIVOT), parts.get(LOC), parts.get(FACTOR),
            self.batch, d, self.hidden, samples, per_block,
            weight=self.weight, **self._options(config, "activation"),
        )  # fmt: skip
        if blocks > 1:
            for k, tensor in parts.items():
                torch.sum(tensor, 0, out=self.own[k][part])

    def _weights(self, part: slice, passed: _Passed, scale: Tensor | None, upstream: Tensor | None) -> None:
        """Gradients of the weights times the edges."""
        if not self.wants_weights:
            return
        config, samples, d = self.products, passed.df.shape[0], self.d
        tiles, columns = triton.cdiv(samples, config.tiles["S"]), triton.cdiv(d, config.tiles["C"])
        added = self.weights is not None
        if self.weights is None:
            most = max(1, CHUNK // (self.w_in.numel() * self.dtype.itemsize))
            splits, steps = _blocks(tiles, min(tiles, most, max(1, PROGRAMS // columns)))
            self.weights, self.steps = self.loc.new_empty(splits, *self.w_in.shape), steps
        splits = len(self.weights)
        blocks, per_block = _blocks(d, max(1, min(triton.cdiv(d, SHARING), PROGRAMS // (columns * splits))))
        pivot, loc = self.pivot[part], self.loc[part]
        weights_kernel[(splits, blocks, columns)](
            self.w_in, self.edges, self.log_sigma, pivot, loc, scale, upstream,
            pivot.stride(0), loc.stride(0), _stride(scale), _stride(upstream),
            self.spans, passed.a, passed.c, passed.df, passed.grad_jac, self.weights,
            self.batch, d, self.hidden, samples, per_block, self.steps, int(added),
            full=self.full, curved=self.curved, weight=self.weight, **self._options(config, "activation"),
        )  # fmt: skip

    def _options(self, config: Config, *without: str) -> dict[str, Any]:
        """What most kernels are compiled for."""
        options = {"single": self.single, "activation": self.activation, "dot": self.dot}
        return {**{k: v for k, v in options.items() if k not in without}, **config.options}


def _blocks(size: int, most: int) -> tuple[int, int]:
    """How many blocks of how many there are, for `most` of them at most."""
    per_block = triton.cdiv(size, most)
    return triton.cdiv(size, per_block), per_block


def _stride(tensor: Tensor | None) -> int:
    """From one sample to the next."""
    return 0 if tensor is None else tensor.stride(0)
