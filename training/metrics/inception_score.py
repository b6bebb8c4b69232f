"""Inception score (Salimans et al. 2016, section 4): are pictures clearly of a class, and of many classes together?"""

from __future__ import annotations

import numpy as np
import torch

from torch_utils.errors import UserError
from training.metrics.rows import Rows

SPLITS = 10


def inception_score(probabilities: Rows, splits: int = SPLITS) -> tuple[float, float]:
    """exp of the mean divergence of each row of [N,classes] from their mean: mean and deviation over `splits` parts.

    Raises UserError for fewer pictures than parts.
    """
    if len(probabilities) < splits:
        raise UserError(f"the inception score is a mean over {splits} parts, and {len(probabilities)} pictures are too "
                        f"few; ask for thousands")  # fmt: skip
    scores = []
    for i in range(splits):
        part = probabilities[i * len(probabilities) // splits : (i + 1) * len(probabilities) // splits].double()
        logs = torch.where(part > 0, part.log(), 0.0)  # 0 log 0 is 0
        mean = part.mean(dim=0, keepdim=True)
        divergence = (part * (logs - torch.where(mean > 0, mean.log(), 0.0))).sum(dim=1).mean()
        scores.append(float(divergence.exp()))
    return float(np.mean(scores)), float(np.std(scores))
