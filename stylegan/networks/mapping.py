"""The mapping network from z to w, the running averages of w, and classes as one-hot rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ops.bias_act import bias_act
from stylegan.networks.config import WIDEST, NetworkConfig
from stylegan.networks.layers import SQRT2, EqualLinear, pixel_norm
from torch_utils.errors import UserError

Activation = Literal["lrelu", "relu"]


@dataclass(frozen=True)
class MappingConfig(NetworkConfig):
    """Settings of a family with a mapping network. The defaults are those of StyleGAN."""

    w_dim: int = 512
    mapping_layers: int = 8
    mapping_dim: int = 512
    mapping_lr_mul: float = 0.01
    mapping_activation: Activation = "lrelu"
    normalize_z: bool = True

    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {
        **NetworkConfig.LIMITS, "w_dim": (1, 2 * WIDEST), "mapping_layers": (0, 64), "mapping_dim": (1, WIDEST),
        "mapping_lr_mul": (1e-9, 1e9),
    }  # fmt: skip

    @property
    def ws_dim(self) -> int:
        return self.w_dim

    @property
    def mapping_inputs(self) -> int:
        """Length of the input of the first layer: of z, and of the embedding of the class if there are classes."""
        return self.z_dim * (2 if self.num_classes else 1)

    def check(self) -> None:
        width = self.mapping_inputs
        if not self.mapping_layers and self.w_dim != width:
            raise UserError(f"--w-dim must be {width} with --map-depth 0, where w is z itself; got {self.w_dim}")


class StyleConfig(MappingConfig):
    """What the StyleGANs have in common, from settings that each declares with its own defaults."""

    fmap_base: int
    fmap_max: int
    style_mixing: float
    mbstd_group: int

    @property
    def mixing_probability(self) -> float:
        return self.style_mixing

    @property
    def minibatch_group(self) -> int:
        return self.mbstd_group

    def nf(self, resolution: int) -> int:
        """Number of feature maps at a resolution."""
        return max(1, min(self.fmap_base // resolution, self.fmap_max))


class MappingNetwork(nn.Module):
    """f: Z -> W (StyleGAN, figure 1b). With 0 layers, w is the normalised z.

    `w_avg` [w_dim] is the centre of truncation. Each class has its own, [num_classes,w_dim], because the average of a
    three and an eight is neither. `forward` does not change it; the training step does.
    """

    w_avg: Tensor
    embed: Any  # what `fresh_embedding` returns, if there are classes
    ACTIVATION_GAIN: ClassVar[float] = 1.0  # of each layer, after its bias; the scale of the weights has the rest

    def __init__(self, config: MappingConfig):
        super().__init__()
        self.config, inputs, layers, w_dim = config, config.mapping_inputs, config.mapping_layers, config.w_dim
        if config.num_classes:
            self.embed = self.fresh_embedding()
        if not layers and inputs != w_dim:
            raise UserError(f"w_dim must be {inputs} without mapping layers, where w is z itself; got {w_dim}")
        dims = [inputs] + [config.mapping_dim] * (layers - 1) + [w_dim]
        pairs = zip(dims[:layers], dims[1:], strict=False)
        gain = SQRT2 / self.ACTIVATION_GAIN
        self.layers = nn.ModuleList(EqualLinear(a, b, gain, config.mapping_lr_mul) for a, b in pairs)
        self.register_buffer("w_avg", torch.zeros((config.num_classes, w_dim) if config.num_classes else (w_dim,)))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N,z_dim] -> w [N,w_dim]. c: classes [N] (int64), or weights of classes [N,num_classes] for a blend.

        Raises UserError if a conditional network gets no class.
        """
        x = self.inputs(z.float(), class_weights(c, self.config.num_classes) if self.config.num_classes else None)
        for layer in self.layers:
            x = bias_act(layer(x), activation=self.config.mapping_activation, gain=self.ACTIVATION_GAIN)
        return x

    def fresh_embedding(self) -> Any:
        """What `inputs` embeds classes with, with fresh weights."""
        return nn.Parameter(torch.randn(self.config.num_classes, self.config.z_dim))

    def inputs(self, z: Tensor, classes: Tensor | None) -> Tensor:
        """z [N,z_dim], weights of classes [N,num_classes] or None -> input of the first layer [N,mapping_inputs]."""
        x = z if classes is None else torch.cat([z, classes @ self.embed], dim=1)
        return pixel_norm(x) if self.config.normalize_z else x

    def centre(self, c: Tensor | None = None) -> Tensor:
        """Centres of truncation for c, which is as in `forward`: [N,w_dim], or [1,w_dim] without classes."""
        if not self.config.num_classes:
            return self.w_avg[None]
        return class_weights(c, self.config.num_classes) @ self.w_avg

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Older snapshots have a single centre for all classes, as have the published networks.
        centre = state_dict.get(prefix + "w_avg")
        if centre is not None and centre.ndim < self.w_avg.ndim:
            state_dict[prefix + "w_avg"] = centre.repeat(self.config.num_classes, 1)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def class_weights(c: Tensor | None, num_classes: int) -> Tensor:
    """Classes [N] -> one-hot rows [N,num_classes] (float32); rows of weights are returned as they are.

    Raises UserError for a missing class, and for one out of range on the CPU; elsewhere the device stops at the latter,
    as it would have to be waited for.
    """
    if c is None:
        raise UserError(f"this network is conditional: choose a class from 0 to {num_classes - 1}")
    if c.ndim == 2:
        return c.float()
    if c.device.type == "cpu" and c.numel() and not (int(c.min()) >= 0 and int(c.max()) < num_classes):
        wrong = sorted({k for k in c.tolist() if not 0 <= k < num_classes})[:10]
        raise UserError(
            f"classes of this network must be from 0 to {num_classes - 1}, got {', '.join(map(str, wrong))}"
        )
    return torch.nn.functional.one_hot(c.long(), num_classes).float()
