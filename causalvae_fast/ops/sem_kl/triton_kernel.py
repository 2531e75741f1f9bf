"""The Triton backend of `sem_kl`: which kernels are launched, with which tiles (README.md, "On a GPU")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from causalvae_fast.ops._outputs import Gradients
from causalvae_fast.ops._triton import Config, check_latents, dot_precision, without_gaps
from causalvae_fast.ops.sem_kl.triton_diagonal import columns_kernel, rows_kernel
from causalvae_fast.ops.sem_kl.triton_full import gradient_kernel, product_kernel, sample_kernel
from causalvae_fast.ops.sem_kl.triton_panels import column_panel_kernel, row_panel_kernel
from causalvae_fast.ops.sem_kl.triton_shared import shared_jac_kernel
from causalvae_fast.ops.sem_kl.triton_small import small_kernel

PROGRAMS = 528  # four for each multiprocessor of an H100: what a sum over the batch is split into, at most
PANELS = 240  # of rows, at least, or half as many of columns: with fewer, the device waits for the longest
CHUNK = (
    1 << 24
)  # bytes of a matrix (d, d) for each sample of a chunk: A, L and N, half of each, stay in the L2 cache


def small_config(d: int, full: bool, dtype: torch.dtype) -> Config | None:
    """For samples that fit into registers, several at a time; None for larger ones."""
    D = max(8, triton.next_power_of_2(d))
    largest = 16 if full else 64
    if largest < D:
        return None
    elements = (1024 if full and D > 8 else 512 if full else 2048) * 4 // dtype.itemsize
    return Config({"S": max(1, elements // D**2), "D": D}, 4 if D * dtype.itemsize < 256 else 8)


def sample_config(d: int, dtype: torch.dtype) -> Config | None:
    """For full posteriors of which a program takes one; None where several programs share one."""
    if d > 64:
        return None
    return Config({"T": 32, "K": 32}, 4, 2) if dtype == torch.float32 else Config({"T": 32, "K": 16}, 4)


def tile_config(d: int, dtype: torch.dtype) -> Config:
    """For one tile of a full posterior."""
    if dtype == torch.float64:
        return Config({"T": 32, "K": 16}, 4, 2)
    return Config({"T": 64, "K": 16}, 8, 2) if d > 64 else Config({"T": 32, "K": 32}, 4, 2)


class Panels(NamedTuple):
    """Of rows, for N and the gradient of jac, or None where each tile has a program; of columns, for the rest."""

    rows: Config | None
    columns: Config


def panels_config(batch: int, d: int, dtype: torch.dtype) -> Panels | None:
    """For gradients of full posteriors in panels; None where there are too few of them."""

    if dtype == torch.float64:
        rows, R = Config({"T": 32, "C": 32, "K": 16}, 4, 2), 16
    else:
        rows, R = Config({"T": 64, "C": 64, "K": 32}, 8) if d > 128 else Config({"T": 32, "C": 64, "K": 32}, 4), 32
    if 2 * batch * triton.cdiv(d, 2 * R) < PANELS:
        return None
    columns = Config({"T": max(rows.tiles["T"], rows.tiles["C"]), "R": R, "K": 16}, 4, 2)
    return Panels(rows if batch * triton.cdiv(d, rows.tiles["T"]) >= PANELS else None, columns)


def rows_config(dtype: torch.dtype) -> Config:
    """For a block of rows of a diagonal posterior."""
    return Config({"R": 16, "C": 128 if dtype == torch.float32 else 64}, 4, 2)


def columns_config(dtype: torch.dtype) -> Config:
    """For a block of columns of a diagonal posterior."""
    return Config({"R": 32, "C": 64 if dtype == torch.float32 else 32}, 4, 2)


def sem_kl_triton(
    jac: Tensor,  # (B, d, d) or (d, d); packed, (B, P) or (P,)
    offset: Tensor,  # (B, d) or (d,)
    log_sigma: Tensor,  # (d,)
    loc: Tensor,  # (B, d)
    factor: Tensor,  # scale (B, d) or scale_tril (B, d, d), packed (B, P)
    *,
    packed_jac: bool = False,  # P = d (d + 1) / 2 values for each matrix
    packed_scale_tril: bool = False,
    upstream: Tensor
    | str = "none",  # (B,): the gradient of the loss with respect to each KL; or of their "sum", "mean"
    wanted: Sequence[bool] = (False,) * 5,  # for each input: compute its gradient
) -> tuple[Tensor, Gradients]:
    """The KL of each sample, and in the same pass the gradients asked for, shaped as their inputs.

    Raises:
        ValueError: if d is larger than 32768.
    """
    check_latents(loc.shape[1])
    call = _Call(jac, offset, log_sigma, loc, factor, packed_jac, packed_scale_tril, upstream, wanted)
    with torch.cuda.device_of(loc):
        if loc.shape[0] > 0:
            call.launch()
        return call.result()


class _Call:
    """The tensors of one call, and the launches that fill them."""

    def __init__(
        self,
        jac: Tensor,
        offset: Tensor,
        log_sigma: Tensor,
        loc: Tensor,
        factor: Tensor,
        packed_jac: bool,
        packed_tril: bool,
        upstream: Tensor | str,
        wanted: Sequence[bool],
    ) -> None:
        (self.batch, self.d), self.dtype = loc.shape, loc.dtype
        self.full = packed_tril or factor.dim() == 3
        self.shape = jac.shape
        self.shared_jac = jac.dim() == (1 if packed_jac else 2)
        self.jac = without_gaps(jac, 1 if packed_jac else 2)
        self.offset = without_gaps(offset, 1)
        self.log_sigma = without_gaps(log_sigma, 1)
        self.loc = without_gaps(loc, 1)
        self.factor = without_gaps(factor, factor.dim() - 1)
        self.upstream = without_gaps(upstream, 0) if isinstance(upstream, Tensor) else None
        self.weight = "given" if isinstance(upstream, Tensor) else upstream
        if not any(wanted):
            self.weight = "none"

        rows = (
            self.batch,
            self.d,
        )  # what the batch shares has a row for each sample, which are summed up at the end
        self.wants_jac, wants_offset, wants_log_sigma, wants_loc, wants_factor = wanted
        self.grad_jac = _empty(jac) if self.wants_jac and not self.shared_jac else None
        self.grad_offset = loc.new_empty(rows) if wants_offset else None
        self.grad_log_sigma = loc.new_empty(rows) if wants_log_sigma else None
        self.grad_loc = loc.new_empty(rows) if wants_loc else None
        self.grad_factor = _empty(factor) if wants_factor else None
        self.value = loc.new_empty(self.batch)
        self.jac_sums: list[Tensor] = []  # (n, *jac.shape): sums over parts of the batch

        self.inputs = (self.jac, self.offset, self.log_sigma, self.loc, self.factor, self.upstream)
        strides = [_stride(self.jac, self.shared_jac), _stride(self.offset, offset.dim() == 1), _stride(self.loc)]
        self.strides = (*strides, _stride(self.factor), _stride(self.upstream))
        self.diagonal = {"packed_jac": packed_jac, "weight": self.weight}
        self.matrices = {**self.diagonal, "packed_tril": packed_tril, "dot": dot_precision(self.dtype)}

    def launch(self) -> None:
        small = small_config(self.d, self.full, self.dtype)
        sample = sample_config(self.d, self.dtype)
        if small is not None:
            self._small(small)
        elif not self.full:
            self._blocks()
        elif sample is not None and not (self.shared_jac and self.wants_jac):
            self._samples(sample)
        else:
            panels = panels_config(self.batch, self.d, self.dtype)
            if panels is not None and self.grad_factor is not None and not (self.shared_jac and self.wants_jac):
                self._panels(panels)
            else:
                self._tiles(tile_config(self.d, self.dtype))

    def result(self) -> tuple[Tensor, Gradients]:
        """Sums over the batch are torch's: one launch, and the same bits in every run."""
        grad_jac, grad_offset, grad_log_sigma = self.grad_jac, self.grad_offset, self.grad_log_sigma
        if self.shared_jac and self.wants_jac:
            sums = self.jac_sums or [self.jac.new_zeros(1, *self.shape)]
            grad_jac = torch.cat(sums).sum(0) if len(sums) > 1 else sums[0].sum(0)
        if grad_offset is not None and self.offset.dim() == 1:
            grad_offset = grad_offset.sum(0)
        if grad_log_sigma is not None:
            grad_log_sigma = grad_log_sigma.flatten(0, -2).sum(0)
        value = self.value.sum(1) if self.value.dim() == 2 else self.value
        return value, [grad_jac, grad_offset, grad_log_sigma, self.grad_loc, self.grad_factor]

    def _small(self, config: Config) -> None:
        groups = triton.cdiv(self.batch, config.tiles["S"])
        summed = self.shared_jac and self.wants_jac
        programs = min(groups, PROGRAMS) if summed else groups
        steps = triton.cdiv(groups, programs)
        programs = triton.cdiv(groups, steps)
        grad_jac = self._sums(programs) if summed else self.grad_jac
        small_kernel[(programs,)](
            *self.inputs, *self.strides, self.value,
            grad_jac, self.grad_offset, self.grad_log_sigma, self.grad_loc, self.grad_factor,
            self.batch, self.d, steps,
            full=self.full, shared_jac=self.shared_jac, **{**self.matrices, "dot": "ieee"}, **config.options,
        )  # fmt: skip

    def _samples(self, config: Config) -> None:
        N, u = self.grad_factor, None
        if self.weight != "none":
            N = torch.empty_like(self.factor) if N is None else N
            u = torch.empty_like(self.loc)
        sample_kernel[(self.batch,)](
            *self.inputs, *self.strides, self.value, N, u,
            self.grad_jac, self.grad_offset, self.grad_log_sigma, self.grad_loc, self.grad_factor,
            self.batch, self.d, **self.matrices, **config.options,
        )  # fmt: skip

    def _tiles(self, config: Config, columns: Config | None = None) -> None:
        """With `columns`, the gradient of scale_tril is computed in panels, in place of N."""
        batch, d, n = self.batch, self.d, triton.cdiv(self.d, config.tiles["T"])
        self.value = self.loc.new_empty(batch, n * (n + 1) // 2)
        N, u, chunk = None, None, batch
        if self.weight != "none":
            chunk, u = self._chunk(), torch.empty_like(self.loc)
            N = self.factor.new_empty(chunk, *self.factor.shape[1:]) if columns is None else self.grad_factor
        if self.grad_log_sigma is not None:
            self.grad_log_sigma = self.loc.new_empty(batch, n, d)
        jac, _, _, loc, factor, upstream = self.inputs
        strides = (self.strides[0], *self.strides[2:])
        tile_gradients = (self.grad_jac, self.grad_loc, None if columns is not None else self.grad_factor)
        for first in range(0, batch, chunk):
            samples = min(chunk, batch - first)
            N_of_chunk = N if columns is None or N is None else N[first:]
            product_kernel[(samples, n, n)](
                *self.inputs, *self.strides, self.value, N_of_chunk, u, self.grad_offset, self.grad_log_sigma,
                batch, d, first, **self.matrices, **config.options,
            )  # fmt: skip
            if any(g is not None for g in tile_gradients):
                gradient_kernel[(samples, n, n)](
                    jac, loc, factor, upstream, *strides, N_of_chunk, u, *tile_gradients,
                    batch, d, first, **self.matrices, **config.options,
                )  # fmt: skip
            if columns is not None:
                self._columns(columns, u, (None, None), first, samples)
            if self.shared_jac and self.wants_jac:
                self._shared_jac(config, N, u, first, samples)

    def _panels(self, config: Panels) -> None:
        if config.rows is None:
            self._tiles(tile_config(self.d, self.dtype), config.columns)
            return
        batch, d, n = self.batch, self.d, triton.cdiv(self.d, config.rows.tiles["T"])
        self.value = self.loc.new_empty(batch, n)
        u, chunk = torch.empty_like(self.loc), self._chunk()
        for first in range(0, batch, chunk):
            samples = min(chunk, batch - first)
            row_panel_kernel[(samples, n)](
                *self.inputs, *self.strides, self.value, self.grad_factor, u,
                self.grad_jac, self.grad_offset, self.grad_log_sigma,
                batch, d, first, **self.matrices, **config.rows.options,
            )  # fmt: skip
            self._columns(config.columns, u, (self.grad_jac, self.grad_loc), first, samples)

    def _columns(
        self, config: Config, u: Tensor | None, others: tuple[Tensor | None, ...], first: int, samples: int
    ) -> None:
        """`others` are the gradients of jac and loc, as far as they are not complete."""
        jac, _, _, _, factor, upstream = self.inputs
        column_panel_kernel[(samples, triton.cdiv(self.d, 2 * config.tiles["R"]))](
            jac, factor, upstream, self.strides[0], *self.strides[3:], self.grad_factor, u, *others,
            self.batch, self.d, first, **self.matrices, **config.options,
        )  # fmt: skip

    def _chunk(self) -> int:
        return min(self.batch, max(1, CHUNK // (self.d**2 * self.dtype.itemsize)))

    def _blocks(self) -> None:
        rows, columns = rows_config(self.dtype), columns_config(self.dtype)
        blocks = triton.cdiv(self.d, rows.tiles["R"])
        self.value = self.loc.new_empty(self.batch, blocks)
        u = None if self.weight == "none" else torch.empty_like(self.loc)
        rows_kernel[(self.batch, blocks)](
            *self.inputs, *self.strides, self.value, u, self.grad_offset, self.grad_log_sigma,
            self.batch, self.d, **self.diagonal, **rows.options,
        )  # fmt: skip
        if any(g is not None for g in (self.grad_jac, self.grad_loc, self.grad_factor)):
            jac, _, log_sigma, loc, factor, upstream = self.inputs
            columns_kernel[(self.batch, triton.cdiv(self.d, columns.tiles["C"]))](
                jac, log_sigma, loc, factor, upstream, self.strides[0], *self.strides[2:],
                u, self.grad_jac, self.grad_loc, self.grad_factor,
                self.batch, self.d, **self.diagonal, **columns.options,
            )  # fmt: skip
        if self.shared_jac and self.wants_jac:
            self._shared_jac(tile_config(self.d, self.dtype), None, u, 0, self.batch)

    def _shared_jac(self, config: Config, N: Tensor | None, u: Tensor | None, first: int, samples: int) -> None:
        n = triton.cdiv(self.d, config.tiles["T"])
        splits = min(samples, max(1, 2 * PROGRAMS // (n * (n + 1))))
        per_split = triton.cdiv(samples, splits)
        splits = triton.cdiv(samples, per_split)
        jac, _, log_sigma, loc, factor, upstream = self.inputs
        shared_jac_kernel[(splits, n, n)](
            jac, log_sigma, loc, factor, upstream, *self.strides[2:], N, u, self._sums(splits),
            self.batch, self.d, first, first + samples, per_split,
            full=self.full, **self.matrices, **config.options,
        )  # fmt: skip

    def _sums(self, parts: int) -> Tensor:
        self.jac_sums.append(self.jac.new_empty(parts, *self.shape))
        return self.jac_sums[-1]


def _stride(tensor: Tensor | None, shared: bool = False) -> int:
    """From one sample to the next; 0 where all have the same."""
    return 0 if tensor is None or shared else tensor.stride(0)


def _empty(tensor: Tensor) -> Tensor:
    """Without gaps, of the same shape."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
