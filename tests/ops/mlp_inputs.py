"""Random inputs of masked-MLP mechanisms, and the truth in float64 to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from inputs import upstream_gradient
from tolerances import gradient_error, value_error
from torch import Tensor

from causalvae_fast.ops._activations import ACTIVATIONS
from causalvae_fast.ops.ancestral_sample.autograd import mlp_ops

BELOW_DIAGONAL = ("w_in", "edges")  # what is read, and has gradients, for parents alone


class MLPInputs(NamedTuple):
    """The tensors of `mlp_ancestral_sample`, in the order of its kernels."""

    noise: Tensor  # (N, d)
    w_in: Tensor  # (d, h, d)
    b_in: Tensor  # (d, h)
    w_out: Tensor  # (d, h)
    b_out: Tensor  # (d,)
    edges: Tensor  # (d, d)
    do_mask: Tensor  # (N, d) or (d,), bool
    do_values: Tensor  # (N, d) or (d,)

    def map(self, function: Callable[[Tensor], Tensor]) -> MLPInputs:
        return MLPInputs(*map(function, self))

    def to(self, dtype: torch.dtype) -> MLPInputs:
        return self.map(lambda t: t.to(dtype) if t.is_floating_point() else t)

    @property
    def differentiable(self) -> tuple[bool, ...]:
        return tuple(t.is_floating_point() for t in self)

    @property
    def batched(self) -> tuple[bool, ...]:
        """For each input, whether every sample has its own."""
        return (True, *(False,) * 5, self.do_mask.dim() == 2, self.do_values.dim() == 2)

    def where_no_parent(self, number: float) -> MLPInputs:
        """With another number in everything that may not be read."""
        d = self.noise.shape[1]
        upper = torch.ones(d, d, dtype=torch.bool).triu()
        return self._replace(
            w_in=self.w_in.masked_fill(upper.unsqueeze(1), number), edges=self.edges.masked_fill(upper, number)
        )


def mlp_inputs(
    batch: int,
    d: int,
    hidden: int = 9,
    do: str = "per_sample",
    dtype: torch.dtype = torch.float64,
    *,
    scale: float = 1.0,
) -> MLPInputs:
    """Well-conditioned; a `scale` of the weights of the inputs above 1 saturates units. Where nothing may be read
    stand conspicuous numbers.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own = (batch,) if do == "per_sample" else ()
    inputs = MLPInputs(
        normal(batch, d),
        scale * d**-0.5 * normal(d, hidden, d),
        normal(d, hidden),
        hidden**-0.5 * normal(d, hidden),
        normal(d),
        torch.rand(d, d, generator=generator, dtype=torch.float64),
        torch.rand(*own, d, generator=generator) < (0 if do == "none" else 0.3),
        normal(*own, d),
    )
    return inputs.where_no_parent(1e3).to(dtype)


def terms(activation: str, inputs: MLPInputs) -> Tensor:
    """(N, d), what an error of z is relative to: the absolute terms of the node's sum, or of one before it, since
    an error of a parent is one of its children too.
    """
    noise, w_in, b_in, w_out, b_out, edges, _, _ = inputs.to(torch.float64)
    z = mlp_ops[activation].reference(*inputs.to(torch.float64))
    assert isinstance(z, Tensor)
    units, _ = ACTIVATIONS[activation](torch.einsum("nj,ij,ikj->nik", z, edges.tril(-1), w_in) + b_in)
    own = (w_out * units).abs().sum(-1) + b_out.abs() + noise.abs() + z.abs()
    return own.cummax(1).values


def truth(activation: str, inputs: MLPInputs) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
    """The reference in float64: z, the upstream gradient in the dtype of the inputs, and a gradient for each."""
    copies = [t.detach().clone() for t in inputs.to(torch.float64)]
    leaves = [t.requires_grad_() for t in copies if t.is_floating_point()]
    z = mlp_ops[activation].reference(*copies)
    assert isinstance(z, Tensor)
    upstream = upstream_gradient(z.numel(), inputs.noise.dtype).reshape(z.shape)
    found = iter(torch.autograd.grad(z, leaves, upstream.double(), materialize_grads=True))
    return z.detach(), upstream, tuple(next(found) if t.is_floating_point() else None for t in copies)


def gradient_errors(
    gradients: Sequence[Tensor | None], expected: Sequence[Tensor | None], inputs: MLPInputs
) -> dict[str, float]:
    """Relative to the largest element of each, as tolerances.py has it, but for two.

    Those of the noise and of the values of each sample are put together to that of z. That of the edges, of which
    there may be one alone, is relative to the terms of its sum over the units, which may cancel.
    """
    pairs = {
        name: (found, known, own)
        for name, found, known, own in zip(inputs._fields, gradients, expected, inputs.batched, strict=True)
        if found is not None and known is not None
    }
    errors = {}
    if "noise" in pairs and "do_values" in pairs and inputs.do_values.dim() == 2:
        (noise, noise_known, _), (values, values_known, _) = pairs.pop("noise"), pairs.pop("do_values")
        errors["z"] = gradient_error(noise + values, noise_known + values_known, batched=True)
    if "edges" in pairs:
        found, known, _ = pairs.pop("edges")
        of_weights = expected[inputs._fields.index("w_in")]
        assert of_weights is not None
        terms = (inputs.w_in * of_weights / inputs.edges.unsqueeze(1)).abs().sum(1).max()
        errors["edges"] = value_error(found, known, terms.clamp_min(torch.finfo(torch.float64).tiny))
    return errors | {
        name: gradient_error(found, known, batched=own) for name, (found, known, own) in pairs.items()
    }
