"""How good a learned graph, a set of latents and a reconstruction are. Pure functions of tensors."""

from causalvae_fast.metrics.adjustment_distances import AdjustmentDistance, parent_aid, sid
from causalvae_fast.metrics.classifier_two_sample import classifier_two_sample
from causalvae_fast.metrics.dci import DCI, dci, disentanglement_completeness
from causalvae_fast.metrics.edge_scores import EdgeScores, edge_scores
from causalvae_fast.metrics.leakage import Leakage, leakage
from causalvae_fast.metrics.linear_r2 import linear_r2
from causalvae_fast.metrics.mcc import MCC, mcc
from causalvae_fast.metrics.pixel_r2 import pixel_r2
from causalvae_fast.metrics.psnr import psnr
from causalvae_fast.metrics.shd import shd
from causalvae_fast.metrics.shd_within_frames import AlignedSHD, shd_within_frames
from causalvae_fast.metrics.sliced_wasserstein import sliced_wasserstein
from causalvae_fast.metrics.up_to_permutation import (
    AlignedEdgeScores,
    edge_scores_up_to_permutation,
    shd_up_to_permutation,
)

__all__ = [
    "DCI",
    "MCC",
    "AdjustmentDistance",
    "AlignedEdgeScores",
    "AlignedSHD",
    "EdgeScores",
    "Leakage",
    "classifier_two_sample",
    "dci",
    "disentanglement_completeness",
    "edge_scores",
    "edge_scores_up_to_permutation",
    "leakage",
    "linear_r2",
    "mcc",
    "parent_aid",
    "pixel_r2",
    "psnr",
    "shd",
    "shd_up_to_permutation",
    "shd_within_frames",
    "sid",
    "sliced_wasserstein",
]
