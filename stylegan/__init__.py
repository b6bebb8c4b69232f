"""StyleGAN and its relatives: train networks, explore them, and edit images with them.

    model = stylegan.load("network-snapshot-025000.safetensors")
    model.generate([0, 1, 2])[0].save("face.png")

PyTorch takes seconds to load. It is imported when one of these names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylegan.editing.directions import Directions as Directions
    from stylegan.latents.latents import Latents as Latents
    from stylegan.model import Model as Model
    from stylegan.model import load as load

_HOMES = {
    "load": "stylegan.model", "Model": "stylegan.model", "Latents": "stylegan.latents.latents",
    "Directions": "stylegan.editing.directions",
}  # fmt: skip

__all__ = ["Directions", "Latents", "Model", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stylegan' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
