"""Whether a classifier can tell two sets of samples apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from causalvae_fast.metrics._checks import check_samples

_HIDDEN, _STEPS, _RATE, _DECAY = 64, 300, 1e-2, 1e-3


def classifier_two_sample(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Held-out accuracy of a classifier between two sets of samples: 1/2 if nothing tells them apart, 1 at worst.

    The classifier has two hidden layers of 64 units. It is trained on one half of the samples, standardised, and
    scored on the other, as the mean of the accuracies of both classes. What it misses is not seen: 1/2 is no proof
    that the distributions are the same.

    Args:
        a: (n, d), finite, n at least 4.
        b: (m, d), finite, m at least 4.
        seed: of the halves and the initial weights; the global generator is left as it was.

    Raises:
        TypeError: if an argument is no tensor.
        ValueError: if a shape does not fit or a value is not finite.

    Source: Lopez-Paz and Oquab, Revisiting classifier two-sample tests (2017).
    """
    check_samples(a, b)
    # The classifier and all that it is made of, whatever the default device is.
    with torch.device("cpu"):
        generator = torch.Generator("cpu").manual_seed(seed)
        fit, held_out = [], []
        for x in (a, b):
            shuffled = x.detach().cpu().float()[torch.randperm(len(x), generator=generator)]
            fit.append(shuffled[: len(x) // 2])
            held_out.append(shuffled[len(x) // 2 :])
        x = torch.cat(fit)
        mean, std = x.mean(0), x.std(0).clamp_min(torch.finfo(x.dtype).tiny)
        y = torch.cat([torch.zeros(len(fit[0])), torch.ones(len(fit[1]))])
        weight = torch.where(y > 0, len(y) / (2 * len(fit[1])), len(y) / (2 * len(fit[0])))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(seed)  # not those of GPUs, which fork_rng would not give back
            classifier = nn.Sequential(
                nn.Linear(x.shape[1], _HIDDEN),
                nn.ReLU(),
                nn.Linear(_HIDDEN, _HIDDEN),
                nn.ReLU(),
                nn.Linear(_HIDDEN, 1),
            )
            optimizer = torch.optim.AdamW(classifier.parameters(), lr=_RATE, weight_decay=_DECAY)
            for _ in range(_STEPS):
                scores = classifier((x - mean) / std).squeeze(1)
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(scores, y, weight).backward()
                optimizer.step()
        with torch.no_grad():
            of_a, of_b = (classifier((x - mean) / std) > 0 for x in held_out)
        return float(((~of_a).float().mean() + of_b.float().mean()) / 2)
