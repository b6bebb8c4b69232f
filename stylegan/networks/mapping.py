"""z -> w, and the running averages of w."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ops.bias_act import bias_act
from stylegan.networks.base import ModelConfig
from stylegan.networks.layers import SQRT2, EqualLinear, pixel_norm
from torch_utils.errors import UserError


class MappingNetwork(nn.Module):
    """f: Z -> W (StyleGAN, figure 1b). With 0 layers, w is the normalised z.

    `w_avg` [w_dim] is the centre of truncation; each class has its own, [num_classes,w_dim], as what lies between a
    three and an eight is neither. It never moves in `forward`; the training loop moves it.
    """

    w_avg: Tensor

    def __init__(self, cfg: ModelConfig):
        super().__init__()
        self.cfg = cfg
        width = cfg.z_dim
        if cfg.num_classes:
            self.embed = nn.Parameter(torch.randn(cfg.num_classes, cfg.z_dim))
            width += cfg.z_dim
        dims = [width] + [cfg.mapping_dim] * (cfg.mapping_layers - 1) + [cfg.w_dim]
        if not cfg.mapping_layers and width != cfg.w_dim:
            raise UserError(f"without mapping layers w is z itself, so w_dim must be {width}, not {cfg.w_dim}")
        self.layers = nn.ModuleList(
            EqualLinear(a, b, gain=SQRT2, lr_mul=cfg.mapping_lr_mul)
            for a, b in zip(dims[: cfg.mapping_layers], dims[1:], strict=False)
        )
        size = (cfg.num_classes, cfg.w_dim) if cfg.num_classes else (cfg.w_dim,)
        self.register_buffer("w_avg", torch.zeros(size))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z: [N,z_dim]  c: class numbers [N] (int64), or class weights [N,num_classes] for a blend -> w: [N,w_dim].

        Raises UserError when a conditional network gets no class.
        """
        x = z.float()
        if self.cfg.num_classes:
            x = torch.cat([x, class_weights(c, self.cfg.num_classes) @ self.embed], dim=1)
        if self.cfg.normalize_z:
            x = pixel_norm(x)
        for layer in self.layers:
            x = bias_act(layer(x), activation=self.cfg.mapping_activation)
        return x

    def centre(self, c: Tensor | None = None) -> Tensor:
        """The centre of truncation for each of c, which is as in `forward`: [N,w_dim], or [1,w_dim] without classes."""
        if not self.cfg.num_classes:
            return self.w_avg[None]
        return class_weights(c, self.cfg.num_classes) @ self.w_avg

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Older snapshots have a single centre for all classes, as published networks do.
        centre = state_dict.get(prefix + "w_avg")
        if centre is not None and centre.ndim < self.w_avg.ndim:
            state_dict[prefix + "w_avg"] = centre.repeat(self.cfg.num_classes, 1)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def class_weights(c: Tensor | None, num_classes: int) -> Tensor:
    """Class numbers [N] as one-hot rows [N,num_classes] (float32); rows that are weights already pass through.

    Raises UserError for no class and for one out of range.
    """
    if c is None:
        raise UserError(f"this network is conditional: name a class from 0 to {num_classes - 1}")
    if c.ndim == 2:
        return c.float()
    if c.numel() and not (int(c.min()) >= 0 and int(c.max()) < num_classes):
        raise UserError(f"this network has classes 0 to {num_classes - 1}, not {c.tolist()}")
    return torch.nn.functional.one_hot(c.long(), num_classes).float()
