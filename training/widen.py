"""A wider network that computes what a narrower one does, to go on from (Chen et al. 2016, Net2Net, section 3).

The new feature maps start as those of a fresh network do, but nobody looks at them yet: the weights by which old maps
depend on new ones are zero. So the picture is the same, and training finds out what the new maps are good for.
"""

from __future__ import annotations

from torch import Tensor

from stylegan.config import ModelConfig


def wider(narrow: ModelConfig, wide: ModelConfig) -> bool:
    """Has `wide` more feature maps, and nowhere fewer, at the resolutions that both have?

    Never for networks with pixel norm, in which every map depends on all others.
    """
    shared = [2, *(res for res in narrow.resolutions if res in wide.resolutions)]  # 2: the dense layers of D
    pairs = [(narrow.nf(res), wide.nf(res)) for res in shared]
    return all(n <= w for n, w in pairs) and any(n < w for n, w in pairs) and not wide.pixel_norm


def statistics(cfg: ModelConfig) -> int:
    """How many inputs of the discriminator's last convolution are no feature maps but the minibatch deviation."""
    return cfg.mbstd_features if cfg.mbstd_group > 1 else 0


def widened(name: str, narrow: Tensor, fresh: Tensor, last: int) -> Tensor:
    """The tensor `name` of the wider network, from that of the narrower one and a fresh one of the wider.

    The two differ in how many feature maps they are of, and in nothing else.

    last: how many `statistics` there are. They are averages over all maps: scores change a little where 4x4 is wider.
    """
    wide = fresh.clone()
    if name.endswith(".const"):  # [1,C,h,w]
        wide[:, : narrow.shape[1]] = narrow
    elif ".style." in name:  # the scales of all maps, then the shifts of all
        wide.unflatten(0, (2, -1))[:, : len(narrow) // 2] = narrow.unflatten(0, (2, -1))
    elif narrow.ndim == 1:
        wide[: len(narrow)] = narrow
    else:  # [outputs, inputs, ...], scaled by 1 / sqrt(fan_in) when used
        maps = narrow.shape[1] - (last if name == "head.conv.weight" else 0)
        old = wide[: len(narrow)].zero_()
        old[:, :maps] = narrow[:, :maps]
        old[:, old.shape[1] - narrow.shape[1] + maps :] = narrow[:, maps:]
        old *= (old[0].numel() / narrow[0].numel()) ** 0.5
    return wide
