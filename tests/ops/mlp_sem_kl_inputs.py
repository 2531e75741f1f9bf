"""Random inputs of `mlp_sem_kl`, and the truth in float64 to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from inputs import SEMInputs, sem_inputs, sem_kl_terms
from mlp_inputs import mlp_inputs
from tolerances import gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops import mlp_sem_kl, pack_tril, unpack_tril
from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops._fused import FusedOp
from causalvae_fast.ops.mlp_sem_kl.autograd import mlp_sem_kl_ops
from causalvae_fast.ops.sem_kl.reference import sem_kl_reference

BATCHED = (True, *(False,) * 6, True, True)  # for each input, whether every sample has its own
PIVOT, EDGES, LOC = 0, 5, 7  # their positions


class MLPSEMInputs(NamedTuple):
    """The tensors of `mlp_sem_kl`, in the order of its kernels."""

    pivot: Tensor  # (B, d)
    w_in: Tensor  # (d, h, d)
    b_in: Tensor  # (d, h)
    w_out: Tensor  # (d, h)
    b_out: Tensor  # (d,)
    edges: Tensor  # (d, d)
    log_sigma: Tensor  # (d,)
    loc: Tensor  # (B, d)
    factor: Tensor  # scale (B, d), scale_tril (B, d, d), or packed (B, d (d + 1) / 2)

    def map(self, function: Callable[[Tensor], Tensor]) -> MLPSEMInputs:
        return MLPSEMInputs(*map(function, self))

    def leaves(self, wanted: Sequence[bool] = (True,) * 9) -> MLPSEMInputs:
        """Copies, of which some require a gradient."""
        return MLPSEMInputs(*(t.detach().clone().requires_grad_(w) for t, w in zip(self, wanted, strict=True)))

    def laid_out(self, posterior: str) -> MLPSEMInputs:
        """With the factor as the kernels of "packed" take it, or unchanged."""
        return self._replace(factor=pack_tril(self.factor)) if posterior == "packed" else self

    def samples(self, which: slice) -> MLPSEMInputs:
        return MLPSEMInputs(*(t[which] if own else t for t, own in zip(self, BATCHED, strict=True)))

    def where_not_read(self, number: float) -> MLPSEMInputs:
        """With another number in everything that may not be read."""
        d = self.loc.shape[1]
        upper = torch.ones(d, d, dtype=torch.bool).triu()
        changed = self._replace(
            w_in=self.w_in.masked_fill(upper.unsqueeze(1), number), edges=self.edges.masked_fill(upper, number)
        )
        if self.factor.dim() == 3:
            changed = changed._replace(factor=self.factor.masked_fill(upper.triu(1), number))
        return changed

    def call(self, posterior: str, **options: Any) -> Tensor:
        """The public function."""
        name = "scale" if posterior == "diagonal" else "scale_tril"
        return mlp_sem_kl(*self[:8], **{name: self.factor}, **options)


POSTERIORS = ("diagonal", "full", "packed")


def op_for(activation: str, posterior: str) -> FusedOp:
    return mlp_sem_kl_ops[activation, posterior == "packed"]


def mlp_sem_inputs(
    batch: int,
    d: int,
    hidden: int = 9,
    posterior: str = "diagonal",
    dtype: torch.dtype = torch.float64,
    *,
    scale: float = 1.0,
) -> MLPSEMInputs:
    """Well-conditioned, with a third of the edges at 0; a `scale` of the weights of the inputs above 1 saturates
    units. A full factor is dense. Where nothing may be read stand conspicuous numbers.
    """
    network = mlp_inputs(batch, d, hidden, scale=scale)
    # With this seed no gradient is a sum that cancels where d is 1.
    sem = sem_inputs(batch, d, "diagonal" if posterior == "diagonal" else "full", "shared", seed=2)
    kept = torch.rand(d, d, generator=torch.Generator().manual_seed(2)) < 2 / 3
    inputs = MLPSEMInputs(
        network.noise,
        network.w_in,
        network.b_in,
        network.w_out,
        network.b_out,
        network.edges * kept,
        sem.log_sigma,
        sem.loc,
        sem.factor,
    )
    return inputs.where_not_read(1e3).map(lambda t: t.to(dtype))


def linearised(activation: str, inputs: MLPSEMInputs) -> SEMInputs:
    """The inputs of `sem_kl` for the model around the pivot, which z is measured from."""
    pivot, w_in, b_in, w_out, b_out, edges, log_sigma, loc, factor = inputs
    weights = w_in * edges.tril(-1).unsqueeze(1)
    value, slope = ACTIVATIONS[activation](torch.einsum("bj,ikj->bik", pivot, weights) + b_in)
    jac = torch.einsum("bik,ikj->bij", w_out * slope, weights)
    return SEMInputs(jac, (w_out * value).sum(-1) + b_out - pivot, log_sigma, loc - pivot, factor)


class Truth(NamedTuple):
    """The reference in float64, for inputs with a dense factor."""

    value: Tensor  # (B,)
    terms: Tensor  # (B,): the sum of the absolute values of the terms of each KL
    gradients: tuple[Tensor, ...]  # of sum_b upstream_b KL_b
    edge_terms: Tensor  # the largest sum of the absolute terms of a gradient of an edge
    pivot_terms: Tensor  # (B,): the same of a sample's gradient of the pivot

    def value_error(self, value: Tensor) -> float:
        return value_error(value, self.value, self.terms)

    def gradient_errors(self, gradients: Sequence[Tensor | None], posterior: str) -> dict[str, float]:
        """Relative to the largest element of each, as tolerances.py has it. Those of the edges and of the pivot
        are sums over hidden units that may cancel: they are relative to the terms of the sums.
        """
        errors = {}
        for k, (name, found, known) in enumerate(
            zip(MLPSEMInputs._fields, gradients, self.gradients, strict=True)
        ):
            if found is None:
                continue
            dense = unpack_tril(found) if name == "factor" and posterior == "packed" else found
            if k == EDGES:
                assert found.triu().count_nonzero() == 0
                errors[name] = value_error(found, known, self.edge_terms)
            elif k == PIVOT:
                errors[name] = value_error(found, known, self.pivot_terms.unsqueeze(1))
            else:
                errors[name] = gradient_error(dense, known, batched=BATCHED[k])
        return errors


def gradient_of_pivot(activation: str, inputs: MLPSEMInputs, upstream: Tensor) -> Tensor:
    """Through the Jacobian alone. In f + J (loc - z), J dz comes in twice, with opposite signs, and autograd
    through the reference subtracts the one from the other, which leaves rounding errors of a size that has nothing
    to do with the gradient's.
    """
    fixed = linearised(activation, inputs)
    pivot = inputs.pivot.clone().requires_grad_()
    jac = linearised(activation, inputs._replace(pivot=pivot)).jac
    if not jac.requires_grad:  # that of the leaky ReLU is constant between its kinks
        return torch.zeros_like(pivot)
    value = sem_kl_reference(jac, *fixed[1:])
    (gradient,) = torch.autograd.grad(value, pivot, upstream.double(), materialize_grads=True)
    return gradient


def terms_of_pivot(activation: str, inputs: MLPSEMInputs, upstream: Tensor) -> Tensor:
    """(B,): of each sample, max_j sum_ik |w_ik phi''_ik U_ikj m_ij| sum_l |U_ikl m_il| T_il, where T are the terms
    of the gradient of J, |D^-1 M L^T + D^-1 r v^T| with the absolute value of each element inside.
    """
    jac, offset, log_sigma, step, factor = linearised(activation, inputs)
    L = factor.diag_embed() if factor.dim() == 2 else factor.tril()
    jac = jac.tril(-1)
    M, residual = L - jac @ L, step - (jac @ step.unsqueeze(-1)).squeeze(-1) - offset
    of_jac = M.abs() @ L.abs().mT + residual.abs().unsqueeze(-1) * step.abs().unsqueeze(-2)
    of_jac = (upstream.double().abs().unsqueeze(-1) * torch.exp(-2 * log_sigma)).unsqueeze(-1) * of_jac
    weights = inputs.w_in * inputs.edges.tril(-1).unsqueeze(1)
    pre = (torch.einsum("bj,ikj->bik", inputs.pivot, weights) + inputs.b_in).requires_grad_()
    slope, curvature = ACTIVATIONS[activation](pre)[1], torch.zeros_like(pre)
    if slope.requires_grad:
        (curvature,) = torch.autograd.grad(slope.sum(), pre)
    back = torch.einsum("bij,ikj->bik", of_jac, weights.abs())
    sums = torch.einsum("bik,ikj->bj", (inputs.w_out * curvature).abs() * back, weights.abs())
    return sums.amax(1).clamp_min(torch.finfo(torch.float64).tiny)


def truth(activation: str, inputs: MLPSEMInputs, upstream: Tensor) -> Truth:
    exact = inputs.map(Tensor.double)
    leaves = exact.leaves()
    value = mlp_sem_kl_ops[activation, False].reference(*leaves)
    assert isinstance(value, Tensor)
    gradients = list(torch.autograd.grad(value, leaves, upstream.double(), materialize_grads=True))
    gradients[PIVOT] = gradient_of_pivot(activation, exact, upstream)
    # With edges of 1, the gradient of w_in is that of the products of both.
    products = (exact.w_in * exact.edges.tril(-1).unsqueeze(1)).requires_grad_()
    same = mlp_sem_kl_ops[activation, False].reference(
        *exact._replace(w_in=products, edges=torch.ones_like(exact.edges))
    )
    assert isinstance(same, Tensor)
    (of_products,) = torch.autograd.grad(same, products, upstream.double())
    edge_terms = (exact.w_in * of_products).abs().sum(1).max().clamp_min(torch.finfo(torch.float64).tiny)
    terms = sem_kl_terms(linearised(activation, exact))
    pivot_terms = terms_of_pivot(activation, exact, upstream)
    return Truth(value.detach(), terms, tuple(gradients), edge_terms, pivot_terms)
