"""The divergences of each pivot and estimator, against torch.distributions, closed forms and each other."""

import math

import pytest
import torch
from mechanism_cases import CASES, OF_NODES, case, normal, of_nodes
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from causalvae_fast import LinearMechanism, SEMPrior, ops
from causalvae_fast.mechanisms import NormalizedMechanism, QuadraticMechanism

WAYS = {
    "posterior_mean": {},
    "posterior_sample": {"pivot": "posterior_sample"},
    "logsumexp": {"pivot": "ancestral", "pivots": 7, "centre": "mean"},
    "min": {"pivot": "ancestral", "pivots": 7, "closest": "min", "centre": "mean"},
    "pivot-centred": {"pivot": "ancestral", "pivots": 7},
    "monte_carlo": {"estimator": "monte_carlo"},
}


def prior_of(name: str, **way: object) -> SEMPrior:
    return SEMPrior(case(name), log_sigma=-0.3, **way).double().eval()  # type: ignore[arg-type]


def posterior(d: int, factor: str, batch: int = 5) -> tuple[MultivariateNormal, dict[str, Tensor]]:
    loc, scale = normal(batch, d, seed=1), normal(batch, d, seed=2).abs() + 0.2
    scale_tril = scale.diag_embed()
    if factor != "scale":
        scale_tril = scale_tril + 0.5 * normal(batch, d, d, seed=3).tril(-1)
    arguments = {"scale": scale, "scale_tril": scale_tril, "packed": ops.pack_tril(scale_tril)}
    name = "scale" if factor == "scale" else "scale_tril"
    return MultivariateNormal(loc, scale_tril=scale_tril), {"loc": loc, name: arguments[factor]}


factors = pytest.mark.parametrize("factor", ["scale", "scale_tril", "packed"])


@factors
@pytest.mark.parametrize("name", CASES)
def test_pivots_of_the_posterior(name: str, factor: str) -> None:
    prior = prior_of(name)
    q, arguments = posterior(prior.d, factor)
    assert_close(prior.kl(**arguments), kl_divergence(q, prior.local_gaussian(q.mean)))
    assert_close(prior.kl(**arguments, z=q.mean + 1), prior.kl(**arguments))  # needs none
    at_sample, z = prior_of(name, pivot="posterior_sample"), normal(5, prior.d, seed=6)
    expected = kl_divergence(q, prior.local_gaussian(z))
    assert_close(at_sample.kl(**arguments, z=z), expected)


@factors
@pytest.mark.parametrize("name", ["mlp", "quadratic", "temporal mlp"])
def test_ancestral_pivots(name: str, factor: str) -> None:
    """Against the K local Gaussians, one by one."""
    prior = prior_of(name)
    q, arguments = posterior(prior.d, factor)
    torch.manual_seed(4)
    pivots = prior.rsample((7,))
    local = prior.local_gaussian(pivots)
    for centre in ("mean", "pivot"):
        means = local.loc if centre == "mean" else pivots
        all_of_them = torch.stack(
            [
                kl_divergence(q, MultivariateNormal(mean, scale_tril=L))
                for mean, L in zip(means, local.scale_tril, strict=True)
            ],
            dim=-1,
        )
        reduced = {"min": all_of_them.amin(-1), "logsumexp": math.log(7) - torch.logsumexp(-all_of_them, -1)}
        for closest, expected in reduced.items():
            ancestral = prior_of(name, pivot="ancestral", pivots=7, closest=closest, centre=centre)
            torch.manual_seed(4)
            assert_close(ancestral.kl(**arguments), expected)


@factors
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("monte_carlo", "pivot-centred")])
@pytest.mark.parametrize("name", ["linear", "temporal linear"])
def test_a_linear_sem_is_exact_wherever_it_is_expanded(name: str, way: str, factor: str) -> None:
    prior, exact = prior_of(name, **WAYS[way]), prior_of(name)
    _, arguments = posterior(prior.d, factor)
    assert_close(prior.kl(**arguments), exact.kl(**arguments))


def test_gaussians_centred_on_their_pivots_are_not_exact_for_a_linear_sem() -> None:
    """What the documentation of `centre` says."""
    prior, exact = prior_of("linear", **WAYS["pivot-centred"]), prior_of("linear")
    _, arguments = posterior(4, "scale")
    assert ((prior.kl(**arguments) - exact.kl(**arguments)).abs() > 0.01).all()


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("monte_carlo", "pivot-centred")])
@pytest.mark.parametrize("name", OF_NODES)
def test_one_latent_is_a_gaussian(name: str, way: str) -> None:
    mechanism = of_nodes(name, 1)
    prior = SEMPrior(mechanism, log_sigma=-0.3, **WAYS[way]).double()
    q, arguments = posterior(1, "scale")
    mean = mechanism(torch.zeros(1, 1).double())
    assert_close(
        prior.kl(**arguments), kl_divergence(Normal(q.mean, q.stddev), Normal(mean, math.exp(-0.3))).sum(-1)
    )


@factors
def test_monte_carlo_at_a_sample(factor: str) -> None:
    prior = prior_of("mlp", estimator="monte_carlo")
    q, arguments = posterior(4, factor)
    z = normal(5, 4, seed=6)
    assert_close(prior.kl(**arguments, z=z), q.log_prob(z) - prior.log_prob(z))


def exact_kl_of_the_parabola(loc: Tensor, scale: Tensor, sigma: float) -> Tensor:
    """KL(N(m, diag(s^2)) || x = n_0, y = x^2 + n_1), (B,), by E (y - x^2)^2 = (r - s_x^2)^2 + s_y^2 + Var x^2.

    r = m_y - m_x^2, Var x^2 = 4 m_x^2 s_x^2 + 2 s_x^4.
    """
    (mx, my), (vx, vy) = loc.unbind(-1), scale.square().unbind(-1)
    second = mx.square() + vx + (my - mx.square() - vx).square() + vy + 4 * mx.square() * vx + 2 * vx.square()
    return 0.5 * second / sigma**2 - 1 + 2 * math.log(sigma) - scale.log().sum(-1)


def test_monte_carlo_is_unbiased() -> None:
    sigma, n = 0.5, 200_000
    options = {"log_sigma": math.log(sigma)}
    loc, scale = torch.tensor([[1.0, 0.5]]).double(), torch.tensor([[0.7, 0.4]]).double()
    exact = exact_kl_of_the_parabola(loc, scale, sigma).item()
    prior = SEMPrior(QuadraticMechanism({1: 0}), estimator="monte_carlo", **options).double()
    found = prior.kl(loc.expand(n, -1), scale=scale.expand(n, -1))
    assert abs(found.mean().item() - exact) < 5 * found.std().item() / n**0.5
    # The expansion at the mean is off by (2 r s^2 - 3 s^4) / (2 sigma^2), s that of x.
    linearized = SEMPrior(QuadraticMechanism({1: 0}), **options).double().kl(loc, scale=scale).item()
    bias = (2 * (0.5 - 1.0) * 0.49 - 3 * 0.49**2) / (2 * sigma**2)
    assert linearized - exact == pytest.approx(bias, rel=1e-6)
    assert abs(bias) > 1


@pytest.mark.parametrize("way", WAYS)
def test_samples_come_from_the_posterior(way: str) -> None:
    """Without z, one is drawn, the same as with that z."""
    prior = prior_of("mlp", **WAYS[way])
    _, arguments = posterior(4, "scale_tril")
    torch.manual_seed(3)
    drawn = prior.kl(**arguments)
    torch.manual_seed(3)
    noise = torch.randn(5, 4, dtype=torch.float64)
    z = arguments["loc"] + (arguments["scale_tril"] @ noise.unsqueeze(-1)).squeeze(-1)
    torch.manual_seed(3)
    assert_close(prior.kl(**arguments, z=z), drawn)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_and_reductions(way: str) -> None:
    prior = SEMPrior(case("mlp"), learn_log_sigma=True, **WAYS[way]).double()
    loc, scale = normal(5, 4).requires_grad_(), (normal(5, 4).abs() + 0.1).requires_grad_()

    def seeded(**options: str) -> Tensor:
        torch.manual_seed(2)
        return prior.kl(loc, scale=scale, **options)

    assert_close(seeded(reduction="mean"), seeded().mean())
    assert_close(seeded(reduction="sum"), seeded().sum())
    seeded().sum().backward()
    for tensor in (loc, scale, *prior.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.count_nonzero() > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_autocast_computes_in_float32(name: str, way: str) -> None:
    prior = prior_of(name, **WAYS[way]).float()
    low = torch.randn(6, prior.d).bfloat16()

    def kl(loc: Tensor, scale: Tensor) -> Tensor:
        torch.manual_seed(1)
        return prior.kl(loc, scale=scale)

    expected = kl(low.float(), low.exp().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(kl(low, low.exp()), expected)


@pytest.mark.parametrize("way", WAYS)
def test_normalised_in_training(way: str) -> None:
    """Statistics follow what f is evaluated at, and the divergence is finite from the start."""
    prior = SEMPrior(NormalizedMechanism(LinearMechanism(4, init_std=1.0)), **WAYS[way]).double()
    _, arguments = posterior(4, "scale")
    assert prior.kl(**arguments).isfinite().all()
    assert prior.mechanism.norm.running_mean[1:].any()


@pytest.mark.parametrize("way", WAYS)
def test_empty_batch(way: str) -> None:
    prior, z = prior_of("mlp", **WAYS[way]), normal(0, 4)
    assert prior.kl(z, scale=z).shape == (0,)
    assert prior.kl(z, scale_tril=normal(0, 4, 4)).shape == (0,)


@pytest.mark.parametrize("way", WAYS)
def test_nan_stays_in_its_sample(way: str) -> None:
    prior = prior_of("mlp", **WAYS[way])
    _, arguments = posterior(4, "scale")
    arguments["loc"][2, 1] = torch.nan
    assert prior.kl(**arguments).isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("way", WAYS)
def test_errors_name_the_argument(way: str) -> None:
    prior, z = prior_of("mlp", **WAYS[way]), normal(3, 4)
    with pytest.raises(ValueError, match=r"exactly one of scale and scale_tril"):
        prior.kl(z)
    with pytest.raises(ValueError, match=r"exactly one of scale and scale_tril"):
        prior.kl(z, scale=z.exp(), scale_tril=torch.eye(4).double().expand(3, 4, 4))
    with pytest.raises(ValueError, match=r"scale must have shape \(3, 4\), got \(3, 3\)"):
        prior.kl(z, scale=z[:, :3].exp())
    with pytest.raises(ValueError, match=r"scale_tril must have shape .* got \(3, 3, 3\)"):
        prior.kl(z, scale_tril=torch.eye(3).double().expand(3, 3, 3))
    with pytest.raises(TypeError, match=r"scale has dtype torch.float32, but loc has torch.float64"):
        prior.kl(z, scale=z.exp().float())
    with pytest.raises(ValueError, match="reduction must be one of"):
        prior.kl(z, scale=z.exp(), reduction="max")
    with pytest.raises(ValueError, match="must be above 0"):
        prior.kl(z, scale=-z.exp(), validate_args=True)
    with pytest.raises(ValueError, match="must be above 0"):
        prior.kl(z, scale_tril=-torch.eye(4).double().expand(3, 4, 4), validate_args=True)
    with pytest.raises(ValueError, match=r"z must have the shape of loc, \(3, 4\), got \(2, 4\)"):
        prior.kl(z, scale=z.exp(), z=z[:2])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pivot": "mean"}, "pivot must be one of posterior_mean, posterior_sample, ancestral, got 'mean'"),
        ({"estimator": "exact"}, "estimator must be one of linearized, monte_carlo, got 'exact'"),
        ({"closest": "max"}, "closest must be one of min, logsumexp, got 'max'"),
        ({"centre": "left"}, "centre must be one of mean, pivot, got 'left'"),
        ({"pivots": 0}, "pivots must be at least 1, got 0"),
    ],
)
def test_errors_of_the_choices(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEMPrior(LinearMechanism(2), **option)


def test_as_a_distribution() -> None:
    prior = prior_of("mlp")
    p = prior.distribution()
    q, arguments = posterior(4, "scale")
    loc, scale = arguments["loc"], arguments["scale"]
    for given in (Normal(loc, scale), Independent(Normal(loc, scale), 1), q):
        assert_close(kl_divergence(given, p), prior.kl(**arguments))
    assert p.event_shape == (4,)
    assert p.batch_shape == ()
    assert p.rsample().shape == (4,)
    assert p.sample((2, 3)).shape == (2, 3, 4)
    assert not p.sample((2,)).requires_grad
    z = normal(2, 3, 4)
    assert_close(p.log_prob(z), prior.log_prob(z.reshape(6, 4)).reshape(2, 3))
    assert p.log_prob(z[0, 0]).shape == ()
    with pytest.raises(ValueError, match=r"value must have shape \(\.\.\., 4\), got \(2, 3\)"):
        p.log_prob(z[:, :, 0])


def test_a_distribution_draws_its_gates_once() -> None:
    from causalvae_fast import GumbelEdges

    prior = SEMPrior(LinearMechanism(4, init_std=1.0), GumbelEdges(4)).double()
    _, arguments = posterior(4, "scale")
    q, p = Normal(*arguments.values()), prior.distribution()
    assert torch.equal(kl_divergence(q, p), kl_divergence(q, p))
    assert not torch.equal(kl_divergence(q, p), kl_divergence(q, prior.distribution()))


def test_repr_names_the_choices() -> None:
    text = repr(SEMPrior(LinearMechanism(2), pivot="ancestral", pivots=3))
    assert "pivot='ancestral', estimator='linearized', pivots=3, closest='logsumexp', centre='pivot'" in text
