"""Losses as pure modules: tensors in, a scalar out, over the pairs of all ranks.

A loss is the same number on every rank, and its gradient, averaged by DDP, is that of one process on the whole batch.
"""

from lightning_modules.losses.affinity import ClassAffinityLoss
from lightning_modules.losses.contrastive import InfoNCELoss
from lightning_modules.losses.counterfactual import CounterfactualMarginLoss
from lightning_modules.losses.group_dro import GroupDROLoss
from lightning_modules.losses.matching import MatchingLoss, hard_negatives
from lightning_modules.losses.momentum import MomentumContrastiveLoss
from lightning_modules.losses.orthogonality import OrthogonalityLoss
from lightning_modules.losses.prompt_cross_entropy import PromptCrossEntropyLoss
from lightning_modules.losses.sigmoid import SigmoidLoss
from lightning_modules.losses.spurious_aware import LabelledImages, SpuriousAwareLoss
from lightning_modules.losses.spurious_pairs import SpuriousPairsLoss
from lightning_modules.losses.triplet import TripletLoss

__all__ = [
    "ClassAffinityLoss",
    "CounterfactualMarginLoss",
    "GroupDROLoss",
    "InfoNCELoss",
    "LabelledImages",
    "MatchingLoss",
    "MomentumContrastiveLoss",
    "OrthogonalityLoss",
    "PromptCrossEntropyLoss",
    "SigmoidLoss",
    "SpuriousAwareLoss",
    "SpuriousPairsLoss",
    "TripletLoss",
    "hard_negatives",
]
