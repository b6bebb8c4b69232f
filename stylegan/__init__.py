"""StyleGAN and ProGAN: what the networks are, what latents mean, how a trained model opens.

G = stylegan.load("network-snapshot-025000.safetensors")
G.generate([0, 1, 2])[0].save("face.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from stylegan.checkpoints.snapshot import Snapshot

__all__ = ["load"]


def load(where: str | Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a trained model. Runs no code from its file.

    where: a snapshot (.safetensors) or a published network (.pkl), the folder of a run (its newest snapshot), the
    http(s) address of either kind of file (fetched once, into the cache), or the name of a model that is included or
    in the cache, which is $STYLEGAN_CACHE/models or ~/.cache/stylegan/models.

    Raises UserError if there is no such model, or if it is not whole.
    """
    # Here and not above: torch takes seconds to load, and whoever wants only a config should not wait for it.
    from stylegan.checkpoints.locate import open_model

    return open_model(where, device)
