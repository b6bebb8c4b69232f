"""The mapping network from z to w, the running averages of w, and classes as one-hot rows."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ops.bias_act import bias_act
from stylegan.networks.layers import SQRT2, EqualLinear, pixel_norm
from torch_utils.errors import UserError

Activation = Literal["lrelu", "relu"]


class MappingNetwork(nn.Module):
    """f: Z -> W (StyleGAN, figure 1b). With 0 layers, w is the normalised z.

    `w_avg` [w_dim] is the centre of truncation. Each class has its own, [num_classes,w_dim], because the average of a
    three and an eight is neither. `forward` does not change it; the training step does.
    """

    w_avg: Tensor

    def __init__(
        self, z_dim: int, w_dim: int, num_classes: int, *, layers: int, width: int, lr_mul: float,
        activation: Activation, normalize_z: bool,
    ):  # fmt: skip
        super().__init__()
        self.num_classes, self.activation, self.normalize_z = num_classes, activation, normalize_z
        inputs = z_dim
        if num_classes:
            self.embed = nn.Parameter(torch.randn(num_classes, z_dim))
            inputs += z_dim
        dims = [inputs] + [width] * (layers - 1) + [w_dim]
        if not layers and inputs != w_dim:
            raise UserError(f"w_dim must be {inputs} without mapping layers, where w is z itself; got {w_dim}")
        self.layers = nn.ModuleList(
            EqualLinear(a, b, gain=SQRT2, lr_mul=lr_mul) for a, b in zip(dims[:layers], dims[1:], strict=False)
        )
        self.register_buffer("w_avg", torch.zeros((num_classes, w_dim) if num_classes else (w_dim,)))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """z [N,z_dim] -> w [N,w_dim]. c: classes [N] (int64), or weights of classes [N,num_classes] for a blend.

        Raises UserError if a conditional network gets no class.
        """
        x = z.float()
        if self.num_classes:
            x = torch.cat([x, class_weights(c, self.num_classes) @ self.embed], dim=1)
        if self.normalize_z:
            x = pixel_norm(x)
        for layer in self.layers:
            x = bias_act(layer(x), activation=self.activation)
        return x

    def centre(self, c: Tensor | None = None) -> Tensor:
        """Centres of truncation for c, which is as in `forward`: [N,w_dim], or [1,w_dim] without classes."""
        if not self.num_classes:
            return self.w_avg[None]
        return class_weights(c, self.num_classes) @ self.w_avg

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # Older snapshots have a single centre for all classes, as have the published networks.
        centre = state_dict.get(prefix + "w_avg")
        if centre is not None and centre.ndim < self.w_avg.ndim:
            state_dict[prefix + "w_avg"] = centre.repeat(self.num_classes, 1)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def class_weights(c: Tensor | None, num_classes: int) -> Tensor:
    """Classes [N] -> one-hot rows [N,num_classes] (float32); rows of weights are returned as they are.

    Raises UserError for a missing class and for one out of range.
    """
    if c is None:
        raise UserError(f"this network is conditional: choose a class from 0 to {num_classes - 1}")
    if c.ndim == 2:
        return c.float()
    if c.numel() and not (int(c.min()) >= 0 and int(c.max()) < num_classes):
        wrong = sorted({k for k in c.tolist() if not 0 <= k < num_classes})[:10]
        raise UserError(
            f"classes of this network must be from 0 to {num_classes - 1}, got {', '.join(map(str, wrong))}"
        )
    return torch.nn.functional.one_hot(c.long(), num_classes).float()
