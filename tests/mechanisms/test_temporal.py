"""One function for all time steps, against the same model with all edges written out."""

import pytest
import torch
from mechanism_cases import case, gates_of, linear, mlp, normal
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from causalvae_fast import SEMPrior, ops, temporal_mask
from causalvae_fast.graph.interventions import descendants
from causalvae_fast.mechanisms import (
    LinearMechanism,
    Mechanism,
    MLPMechanism,
    TemporalMechanism,
)
from causalvae_fast.mechanisms.base import Normalization


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().size() // tensor.element_size())
        return result


def test_value_frame_by_frame() -> None:
    mechanism = case("temporal mlp")
    z = normal(3, 8)
    frames = [torch.zeros(3, 2).double()]
    frames += [mechanism.mechanism(z[:, 2 * t : 2 * t + 4])[:, -2:] for t in range(3)]
    assert_close(mechanism(z), torch.cat(frames, dim=1))


def test_other_outputs_in_the_place_of_its_own() -> None:
    """A normalisation of each node, as any mechanism takes it."""
    mechanism, (noise, loc, scale) = case("temporal mlp"), (normal(3, 8, seed=s) for s in range(3))
    mechanism.requires_grad_(False)
    other = Normalization(normal(8, seed=4), normal(8, seed=5).exp())
    z = mechanism.solve(noise, normalization=other)
    assert_close(z, other(mechanism(z)) + noise)
    arguments = {"scale": scale.exp(), "normalization": other}
    sigma = torch.zeros(8).double()
    kl = mechanism.local_kl(loc, sigma, loc, **arguments)
    assert_close(kl, super(TemporalMechanism, mechanism).local_kl(loc, sigma, loc, **arguments))


def test_influence_is_that_of_the_window_at_every_time_step() -> None:
    mechanism = TemporalMechanism(LinearMechanism(6), frames=5, latents=2)
    expected = temporal_mask(5, 2, lag=2, instantaneous=True)
    expected[:4] = False  # the first time steps start the process
    assert torch.equal(mechanism.influence(), expected)
    assert mechanism.allowed.nonzero()[:, 0].unique().tolist() == [4, 5]
    assert repr(mechanism).startswith("TemporalMechanism(\n  frames=5, latents=2, lag=2")


def random_chain(lag: int, instantaneous: bool, seed: int) -> tuple[TemporalMechanism, Tensor]:
    """Seven time steps of three latents, with a third of the possible edges; and gates, half of them shut."""
    generator = torch.Generator().manual_seed(seed)
    allowed = temporal_mask(lag + 1, 3, instantaneous=instantaneous)
    allowed &= torch.rand(allowed.shape, generator=generator) < 1 / 3
    gates = torch.rand(allowed.shape, generator=generator, dtype=torch.float64)
    gates *= torch.rand(allowed.shape, generator=generator) < 0.5
    mechanism = LinearMechanism(len(allowed), allowed, init_std=1.0)
    temporal = TemporalMechanism(mechanism, frames=7, latents=3).double().eval()
    return temporal, gates * temporal.allowed


@pytest.mark.parametrize("instantaneous", [False, True])
@pytest.mark.parametrize("lag", [1, 2, 3])
def test_descendants_are_those_in_the_graph_of_all_nodes(lag: int, instantaneous: bool) -> None:
    counts = set()
    for seed in range(30):
        mechanism, gates = random_chain(lag, instantaneous, seed)
        for edges in (None, gates):
            chosen = torch.randperm(21, generator=torch.Generator().manual_seed(seed))[: seed % 5]
            nodes = torch.zeros(21, dtype=torch.bool).index_fill(0, chosen, True)
            expected = descendants(mechanism.influence(edges), nodes)
            assert torch.equal(mechanism.descendants(nodes, edges), expected)
            counts.add(int(expected.sum()))
    assert len(counts) > 5


@pytest.mark.parametrize("instantaneous", [False, True])
def test_interventions_are_those_on_the_graph_of_all_nodes(
    instantaneous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mechanism, gates = random_chain(2, instantaneous, seed=3)
    prior, z = SEMPrior(mechanism).double(), normal(4, 21)
    do = {2: normal(4, seed=1), 7: 0.5, 13: normal(4, seed=2)}

    def intervene() -> Tensor:
        torch.manual_seed(0)
        return prior.intervene(z, do, edges=gates)

    found = intervene()
    assert 3 < (found != z).any(0).sum() < 21
    monkeypatch.setattr(TemporalMechanism, "descendants", Mechanism.descendants)
    assert torch.equal(found, intervene())


def test_memory_of_interventions_on_a_long_chain() -> None:
    """No tensor beyond the samples, (B, T k); the graph of all nodes would have (T k)^2 entries."""
    samples, frames, latents = 2, 2000, 4
    window = LinearMechanism(2 * latents, temporal_mask(2, latents, instantaneous=True), init_std=0.1)
    prior = SEMPrior(TemporalMechanism(window, frames, latents))
    z = torch.randn(samples, frames * latents)
    with Largest() as mode, torch.no_grad():
        found = prior.intervene(z, {1: 1.0, 4000: torch.tensor([2.0, 3.0])})
    assert mode.elements == samples * frames * latents
    assert torch.equal(found[:, [0, 2, 3]], z[:, [0, 2, 3]])
    assert found[:, 1].tolist() == [1, 1]
    assert found[:, 4000].tolist() == [2, 3]
    assert (found[:, 4:] != z[:, 4:]).all()


@pytest.mark.parametrize("name", ["temporal mlp", "temporal linear", "temporal normalized"])
@pytest.mark.parametrize("posterior", ["scale", "scale_tril"])
def test_kl_of_windows_is_that_of_the_whole_jacobian(name: str, posterior: str) -> None:
    mechanism, log_sigma = case(name), 0.3 * normal(8, seed=4)
    pivot, loc, scale = normal(5, 8, seed=1), normal(5, 8, seed=2), normal(5, 8, seed=3).abs() + 0.1
    edges = gates_of(mechanism)
    factor = {posterior: scale if posterior == "scale" else normal(5, 8, 8).tril(-1) + scale.diag_embed()}
    jac, offset = Mechanism.expand(mechanism, pivot, edges)
    expected = ops.sem_kl(jac, offset, log_sigma, loc, **factor)
    assert_close(mechanism.local_kl(pivot, log_sigma, loc, **factor, edges=edges), expected)
    mean = mechanism.local_kl(pivot, log_sigma, loc, **factor, edges=edges, reduction="mean")
    assert_close(mean, expected.mean())


def test_gradients_of_the_kl_of_windows() -> None:
    mechanism = case("temporal mlp")
    inputs = (normal(2, 8), 0.3 * normal(8, seed=4), normal(2, 8, seed=2), normal(2, 8, seed=3).abs() + 0.1)

    def kl(pivot: Tensor, log_sigma: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        return mechanism.local_kl(pivot, log_sigma, loc, scale=scale)

    assert torch.autograd.gradcheck(kl, tuple(x.requires_grad_() for x in inputs), fast_mode=True)


def test_memory_of_a_long_video_grows_with_its_length_alone() -> None:
    """The largest tensor of the value and its gradients holds some number of elements for each time step."""

    def largest(frames: int) -> int:
        window = MLPMechanism(4, 8, allowed=temporal_mask(2, 2))
        mechanism = TemporalMechanism(window, frames, latents=2)
        loc = torch.randn(3, 2 * frames, requires_grad=True)
        with Largest() as mode:
            mechanism.local_kl(loc, torch.zeros(2 * frames), loc, scale=torch.ones(3, 2 * frames)).sum().backward()
        return mode.elements

    assert largest(1000) < 11 * largest(100)


def test_sampling_frame_by_frame() -> None:
    mechanism, noise = case("temporal mlp"), normal(6, 8)
    z = mechanism.solve(noise)
    assert torch.equal(z[:, :2], noise[:, :2])
    assert_close(z, mechanism(z) + noise)


def test_extrapolation_is_sampling_without_noise() -> None:
    mechanism = case("temporal mlp")
    start = normal(6, 8)
    continued = mechanism.extrapolate(start, steps=3)
    longer = TemporalMechanism(mechanism.mechanism, frames=4, latents=2).double().eval()
    noise = torch.cat([start[:, -2:], torch.zeros(6, 6).double()], dim=1)
    assert_close(continued, longer.solve(noise)[:, 2:])
    # Only the last time step counts here.
    assert torch.equal(mechanism.extrapolate(start[:, -2:], steps=3, latents=2), continued)


def test_uniform_motion_goes_on() -> None:
    window = LinearMechanism(3, bias=False)
    window.weight.data[2] = torch.tensor([-1.0, 2.0, 0.0])
    z = torch.tensor([[0.0, 1.0, 2.0], [5.0, 4.0, 3.0]])
    found = TemporalMechanism(window, frames=3, latents=1).extrapolate(z, steps=2)
    assert found.tolist() == [[3, 4], [2, 1]]
    assert window.extrapolate(z, steps=2, latents=1).tolist() == [[3, 4], [2, 1]]


def test_errors_name_the_argument() -> None:
    with pytest.raises(TypeError, match="mechanism must be a Mechanism, got int"):
        TemporalMechanism(4, 3, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mechanism must have .* latents nodes .* got 4 nodes and 3"):
        TemporalMechanism(linear(4), 3, 3)
    with pytest.raises(ValueError, match="got 4 nodes and 4 latents"):
        TemporalMechanism(linear(4), 3, 4)
    with pytest.raises(ValueError, match="frames must be above the lag, 2, got 2"):
        TemporalMechanism(linear(6), 2, 2)
    mechanism = TemporalMechanism(mlp(4), 3, 2)
    with pytest.raises(ValueError, match="latents must be 2, as in the mechanism, got 3"):
        mechanism.extrapolate(torch.zeros(1, 6), 1, latents=3)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        mechanism.extrapolate(torch.zeros(1, 6), 0)
    with pytest.raises(ValueError, match=r"z must have shape \(N, T \* 2\) with T >= 1, got \(1, 5\)"):
        mechanism.extrapolate(torch.zeros(1, 5), 1)
    with pytest.raises(ValueError, match="latents must divide the 4 nodes of the window, got 3"):
        linear(4).extrapolate(torch.zeros(1, 6), 1, latents=3)
    z = torch.zeros(1, 6)
    with pytest.raises(ValueError, match=r"scale must be above 0, got -1.0"):
        mechanism.local_kl(z, torch.zeros(6), z, scale=z - 1, validate_args=True)
