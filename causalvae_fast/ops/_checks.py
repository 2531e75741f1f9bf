"""The only place that validates arguments: wrong ones raise before any pointer is taken."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Generic, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from causalvae_fast.ops import _native
from causalvae_fast.ops._packed import diagonal_of_tril

REDUCTIONS = ("none", "mean", "sum")
_MOST_REMEMBERED = 4096  # signatures of an op

P = ParamSpec("P")
R = TypeVar("R")


class Checked(NamedTuple, Generic[R]):
    """What checks gave."""

    result: R
    ordinary: bool  # nothing of PyTorch but autograd has to see the call, and tensors are on the CPU


def remembered(check: Callable[P, R]) -> Callable[P, Checked[R]]:
    """Decorator of an op's checks: arguments like others that passed are not checked again.

    Alike are those of ordinary calls with the same `_native.signature`: dtypes and shapes of tensors, strings, and
    which are None. The result must not depend on anything else. Arguments are given by position.
    """
    passed: dict[bytes, Checked[R]] = {}

    @functools.wraps(check)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Checked[R]:
        signature = _native.signature(args)
        if signature is None:
            return Checked(check(*args, **kwargs), False)
        try:
            return passed[signature]
        except KeyError:
            result = Checked(check(*args, **kwargs), True)
        if len(passed) >= _MOST_REMEMBERED:
            passed.clear()
        passed[signature] = result
        return result

    return checked


def check_tensors(tensors: Mapping[str, object]) -> None:
    """All arguments are tensors of one dtype, float32 or float64, on one device.

    Raises:
        TypeError: if an argument is not a tensor or has another dtype.
        ValueError: if the devices differ.
    """
    first_name: str | None = None
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.layout is not torch.strided:
            raise TypeError(f"{name} must be dense, got {tensor.layout}")
        if first_name is None:
            first_name, first = name, tensor
            if tensor.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"{name} must be float32 or float64, got {tensor.dtype}")
        elif tensor.dtype != first.dtype:
            raise TypeError(
                f"{name} has dtype {tensor.dtype}, but {first_name} has {first.dtype}: convert one of them"
            )
        elif tensor.device != first.device:
            raise ValueError(
                f"{name} is on {tensor.device}, but {first_name} is on {first.device}: move one of them"
            )


def check_shape(name: str, tensor: Tensor, *shapes: tuple[int, ...]) -> None:
    """The tensor has one of the shapes.

    Raises:
        ValueError: otherwise.
    """
    for shape in shapes:
        # By the number of dimensions and the last one first: where B is compared with d, torch.export takes it to
        # be d, or never to be it.
        if tensor.dim() == len(shape) and tensor.shape[-1:] == shape[-1:] and tensor.shape == shape:
            return
    expected = " or ".join(str(shape) for shape in shapes)
    raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")


def check_not_broadcast(name: str, value: object, loc: Tensor) -> None:
    """The value is no number and no tensor (d,) or (), which `torch.distributions` would expand to `loc` (B, d).

    Raises:
        ValueError: otherwise.
    """
    if isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.dim() < 2):
        tensor, got = (name, tuple(value.shape)) if isinstance(value, Tensor) else (f"torch.tensor({name})", value)
        raise ValueError(
            f"{name} must have the shape of loc, {tuple(loc.shape)}, got {got}: use {tensor}.expand_as(loc)"
        )


def check_matrix(name: str, tensor: Tensor) -> tuple[int, int]:
    """The tensor has shape (B, d) with d >= 1; returns B and d.

    Raises:
        ValueError: otherwise.
    """
    shape = tensor.shape
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"{name} must have shape (B, d), got {tuple(shape)}")
    return shape[0], shape[1]


def check_square(name: str, tensor: Tensor) -> tuple[int | None, int]:
    """The tensor has shape (B, d, d), or (d, d) without a batch, with d >= 1; returns B, or None, and d.

    Raises:
        ValueError: otherwise.
    """
    if tensor.dim() not in (2, 3) or tensor.shape[-1] < 1 or tensor.shape[-1] != tensor.shape[-2]:
        raise ValueError(f"{name} must have shape (B, d, d) or (d, d), got {tuple(tensor.shape)}")
    return tensor.shape[0] if tensor.dim() == 3 else None, tensor.shape[-1]


def check_hidden_weights(w_in: Tensor, d: int) -> int:
    """w_in has shape (d, h, d) with h >= 1; returns h.

    Raises:
        ValueError: otherwise.
    """
    if w_in.dim() != 3 or w_in.shape[1] < 1 or w_in.shape[0] != d or w_in.shape[2] != d:
        raise ValueError(f"w_in must have shape ({d}, h, {d}) with h >= 1, got {tuple(w_in.shape)}")
    return w_in.shape[1]


def check_one_of(**arguments: object) -> None:
    """Exactly one of the arguments is not None.

    Raises:
        ValueError: otherwise.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(arguments)}, got {' and '.join(given) or 'neither'}")


def check_both_or_neither(**arguments: object) -> None:
    """None of the arguments is None, or all are.

    Raises:
        ValueError: otherwise.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given and len(given) < len(arguments):
        raise ValueError(f"give both or neither of {' and '.join(arguments)}, got only {' and '.join(given)}")


def check_mask(name: str, mask: object, other_name: str, other: Tensor) -> None:
    """The mask is a boolean tensor on the device of another argument.

    Raises:
        TypeError: if it is not a tensor, or not boolean.
        ValueError: if the devices differ.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(mask).__name__}")
    if mask.layout is not torch.strided or mask.dtype != torch.bool:
        raise TypeError(f"{name} must be dense and torch.bool, got {mask.layout} and {mask.dtype}")
    if mask.device != other.device:
        raise ValueError(f"{name} is on {mask.device}, but {other_name} is on {other.device}: move one of them")


def check_reduction(reduction: str) -> None:
    """The reduction is a known one.

    Raises:
        ValueError: otherwise.
    """
    check_choice("reduction", reduction, REDUCTIONS)


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """The value is one of the choices.

    Raises:
        ValueError: otherwise.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_integer(name: str, value: object, least: int | None = None) -> int:
    """The value as an int, of any integer type, NumPy's included; not below `least`.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is below `least`.
    """
    try:
        if isinstance(value, bool | Tensor):
            raise TypeError
        # Not of an int: that would make a size fixed for torch.compile.
        found = value if isinstance(value, int) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        shown = type(value).__name__ if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} must be an integer, got {shown}") from None
    if least is not None and found < least:
        raise ValueError(f"{name} must be at least {least}, got {found}")
    return found


def may_read(tensor: Tensor) -> bool:
    """Whether values of the tensor may decide what is done: not inside of torch.compile or the transforms of
    torch.func, and not where there are none, as on the meta device.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return type(tensor) in (Tensor, torch.nn.Parameter) and not tensor.is_meta


def check_positive(name: str, values: Tensor) -> None:
    """All values, (B, d) or (d,), are above 0. Reads them, so it is done only where the caller asks for it, and
    not where they cannot be read (`may_read`).

    Raises:
        ValueError: otherwise, with the first sample that has another one.
    """
    if not may_read(values):
        return
    bad = ~(values > 0)
    if bool(bad.any()):
        *sample, index = bad.nonzero()[0].tolist()
        number = values[(*sample, index)].item()
        raise ValueError(f"{name} must be above 0, got {number} for latent {index}{_of_sample(sample)}")


def check_positive_factor(scale: Tensor | None, scale_tril: Tensor | None, d: int) -> None:
    """`scale` (B, d), or the diagonal of `scale_tril`, (B, d, d) or packed, is above 0; see `check_positive`.

    Raises:
        ValueError: otherwise.
    """
    if scale is not None:
        check_positive("scale", scale)
    elif scale_tril is not None:
        check_positive("scale_tril", diagonal_of_tril(scale_tril, d))


def check_positive_definite(name: str, matrices: Tensor) -> None:
    """All matrices, (B, d, d) or (d, d), are positive definite, as far as their lower triangles say. Factorises
    them, so it is done only where the caller asks for it, and not where they cannot be read (`may_read`).

    Raises:
        ValueError: otherwise, with the first sample that has another one.
    """
    if not may_read(matrices):
        return
    factor, info = torch.linalg.cholesky_ex(matrices.detach())
    bad = (info != 0) | factor.diagonal(dim1=-2, dim2=-1).isnan().any(-1)
    if bool(bad.any()):
        sample = bad.nonzero()[0].tolist()
        raise ValueError(f"{name} must be positive definite, but the matrix{_of_sample(sample)} is not")


def _of_sample(index: list[int]) -> str:
    """Which sample, where each has its own."""
    return f" of sample {index[0]}" if index else ""
