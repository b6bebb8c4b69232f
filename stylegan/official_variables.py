"""Variables of the published TensorFlow networks as state dicts of ours: other names, other axis orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stylegan.config import ModelConfig
from torch_utils.errors import UserError

State = dict[str, Tensor]
Fused = Callable[[int], bool]
"""Whether the published network scales inside the convolution that goes to, or comes from, this resolution."""


class Variables:
    """The variables of one network, each to be taken once, in our layout (float32)."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.unused = set(arrays)

    def take(self, name: str, ndim: int = 1) -> Tensor:
        """As it is. Raises UserError if it is missing or has another number of dimensions."""
        if name not in self.arrays or np.ndim(self.arrays[name]) != ndim:
            raise UserError(f"variable {name} is missing or of another shape; the network is not as published")
        self.unused.discard(name)
        return torch.from_numpy(np.array(self.arrays[name], dtype=np.float32))

    def dense(self, name: str) -> Tensor:
        """[in,out] -> [out,in]."""
        return self.take(name, ndim=2).t().contiguous()

    def conv(self, name: str, axes: str = "hwio") -> Tensor:
        """[h,w,in,out], or what `axes` says -> [out,in,h,w]."""
        return self.take(name, ndim=4).permute([axes.index(axis) for axis in "oihw"]).contiguous()

    def expect_all_taken(self) -> None:
        """Raises UserError if the network has a part that ours does not."""
        if self.unused:
            raise UserError(f"variable {min(self.unused)} is unknown; the network is not as published")


def mapping_state(source: Variables, cfg: ModelConfig) -> State:
    """StyleGAN's mapping network and its average w, which is one for all classes."""
    state = {"mapping.w_avg": source.take("dlatent_avg")}
    if cfg.num_classes:
        state["mapping.w_avg"] = state["mapping.w_avg"].repeat(cfg.num_classes, 1)
        state["mapping.embed"] = source.take("G_mapping/LabelConcat/weight", ndim=2)
    for index in range(cfg.mapping_layers):
        state[f"mapping.layers.{index}.weight"] = source.dense(f"G_mapping/Dense{index}/weight")
        state[f"mapping.layers.{index}.bias"] = source.take(f"G_mapping/Dense{index}/bias")
    return state


def synthesis_state(source: Variables, cfg: ModelConfig, fused: Fused) -> State:
    """The synthesis network of StyleGAN, or the generator of ProGAN, which is the same with less."""
    prefix = "G_synthesis/" if cfg.family == "stylegan" else ""
    state: State = {}
    for index, res in enumerate(cfg.resolutions):
        for half in range(2):
            name = f"{prefix}{res}x{res}/{_layer_name(cfg, res, half, fused)}"
            ours = f"synthesis.blocks.{res}.{half}."
            state |= {ours + key: value for key, value in _layer(source, cfg, name, fused(res)).items()}
            if cfg.noise:
                state[ours + "noise"] = source.take(f"{prefix}noise{2 * index + half}", ndim=4)
        state |= _conv(
            source, f"synthesis.to_rgb.{res}", f"{prefix}ToRGB_lod{cfg.resolution.bit_length() - res.bit_length()}"
        )
    return state


def discriminator_state(source: Variables, cfg: ModelConfig, fused: Fused) -> State:
    """The discriminator of either family. Its fused convolutions equal the plain ones, so nothing is flipped."""
    state: State = {}
    for res in cfg.resolutions:
        state |= _conv(source, f"from_rgb.{res}", f"FromRGB_lod{cfg.resolution.bit_length() - res.bit_length()}")
        if res > 4:
            second = "Conv1_down" if cfg.family == "stylegan" or fused(res) else "Conv1"
            state |= _conv(source, f"blocks.{res}.conv0", f"{res}x{res}/Conv0")
            state |= _conv(source, f"blocks.{res}.conv1", f"{res}x{res}/{second}")
    state |= _conv(source, "head.conv", "4x4/Conv")
    for index in range(2):
        state[f"head.dense{index}.weight"] = source.dense(f"4x4/Dense{index}/weight")
        state[f"head.dense{index}.bias"] = source.take(f"4x4/Dense{index}/bias")
    return state


def _layer_name(cfg: ModelConfig, resolution: int, half: int, fused: Fused) -> str:
    if resolution == 4:
        first = "Const" if cfg.const_input else "Dense"
        return (first, "Conv")[half]
    first = "Conv0_up" if cfg.family == "stylegan" or fused(resolution) else "Conv0"
    return (first, "Conv1")[half]


def _layer(source: Variables, cfg: ModelConfig, name: str, fused: bool) -> State:
    """One style layer: its weight, bias, noise strength and style."""
    state = {"bias": source.take(f"{name}/bias")}
    if name.endswith("Const"):
        state["const"] = source.take(f"{name}/const", ndim=4)
    elif name.endswith("Dense"):
        state["weight"] = source.dense(f"{name}/weight")
    elif name.endswith("Conv0_up") and fused:
        # A transposed convolution: it applies the kernel the other way round from ours; ProGAN stores it transposed.
        axes = "hwoi" if cfg.family == "progan" else "hwio"
        state["weight"] = source.conv(f"{name}/weight", axes).flip(2, 3)
    else:
        state["weight"] = source.conv(f"{name}/weight")
    if cfg.noise:
        state["noise_strength"] = source.take(f"{name}/Noise/weight")
    if cfg.styles:
        state["style.weight"] = source.dense(f"{name}/StyleMod/weight")
        state["style.bias"] = source.take(f"{name}/StyleMod/bias")
    return state


def _conv(source: Variables, ours: str, name: str) -> State:
    return {f"{ours}.weight": source.conv(f"{name}/weight"), f"{ours}.bias": source.take(f"{name}/bias")}
