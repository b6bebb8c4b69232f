"""The interface of generators and discriminators, which every family implements.

Growth is an argument: `stage` says at which resolution a network is evaluated, and with which weight of its newest
block. A network keeps no state besides its weights.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor, nn

from stylegan.networks.config import Config, NetworkConfig, Stage, require_styles
from stylegan.networks.mapping import MappingNetwork, class_weights
from stylegan.networks.sampling import truncate
from torch_utils.errors import UserError

Noise = str | Tensor | Sequence[Tensor]
""""const", "random", "none", a map [1 or N,1,H,W] for each layer with noise, or places, int64 [N,2], of which layers
make the numbers themselves (`ops.philox`; the stream is the layer's number).
"""


class Synthesis(nn.Module):
    """ws -> images: the part of a generator that projection and editing use."""

    def forward(
        self, ws: Tensor, stage: Stage | None = None, noise: Noise = "const", dtype: torch.dtype = torch.float32,
        edits: Sequence[Tensor] = (),
    ) -> Tensor:  # fmt: skip
        """ws: [N,num_ws,ws_dim] -> images [N,channels,H,W], float32, about [-1, 1].

        stage: where to stop, and the weight of the newest block; None for the full size.
        noise: see `Noise`; "random" uses torch's global generator.
        dtype: of the feature maps; weights, statistics, styles and images stay float32.
        edits: added to the style of each layer, [1 or N,style_dim] each (StyleSpace, Wu et al. 2021); empty for none.
        """
        raise NotImplementedError

    def layer_of(self, weight: str) -> int:
        """The layer to which a weight belongs, by its name; counted without the layers to the image.

        Raises UserError for a network whose layers cannot be exchanged.
        """
        raise UserError("layers of such networks cannot be exchanged; use two StyleGAN networks")


def noise_of_layers(noise: Noise, own: Sequence[Tensor], sizes: Sequence[tuple[int, int]], ws: Tensor) -> list[Any]:
    """What each layer with noise takes, of these heights and widths: a map, places, or None.

    own: the maps that the network stores   ws: [N,num_ws,ws_dim], for how many maps are drawn, and on which device
    Raises ValueError for another mode than those of `Noise`, and for too few maps.
    """
    if isinstance(noise, Tensor):
        return [noise] * len(sizes)
    if noise == "none":
        return [None] * len(sizes)
    if noise == "const":
        return list(own[: len(sizes)])
    if noise == "random":
        return [torch.randn(len(ws), 1, *size, device=ws.device) for size in sizes]
    if isinstance(noise, str) or len(noise) < len(sizes):
        raise ValueError(f"noise must be 'const', 'random', 'none' or {len(sizes)} maps, got {noise!r:.80}")
    return list(noise[: len(sizes)])


class Generator(nn.Module):
    """z -> ws -> images. A family sets `config`, `synthesis` and, if it has a w, `mapping`."""

    config: NetworkConfig
    mapping: MappingNetwork
    synthesis: Synthesis
    has_w: ClassVar[bool] = True

    def latents(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], classes [N] -> ws [N,num_ws,ws_dim], truncated towards the average of their class."""
        return truncate(self.broadcast(self.mapping(z, c)), self.mapping.centre(c), psi, cutoff)

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None,
        stage: Stage | None = None, noise: Noise = "const", dtype: torch.dtype = torch.float32,
    ) -> Tensor:  # fmt: skip
        """z [N,z_dim] -> images [N,channels,H,W]. For the other arguments see `latents` and `Synthesis.forward`."""
        images: Tensor = self.synthesis(self.latents(z, c, psi, cutoff), stage, noise, dtype)
        return images

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat w for every layer: [N,ws_dim] -> ws [N,num_ws,ws_dim]."""
        return w[:, None].expand(-1, self.config.num_ws, -1)

    def own_noise(self) -> list[Tensor]:
        """Noise maps [1,1,H,W] that the network stores, one for each layer with noise."""
        return []

    def styles(self, ws: Tensor) -> list[Tensor]:
        """ws [N,num_ws,w_dim] -> style [N,style_dim] of each layer: a point in StyleSpace (Wu et al. 2021).

        Raises UserError for a network without styles.
        """
        require_styles(self.config)
        raise NotImplementedError

    def style_weight(self, layer: int) -> Tensor:
        """Matrix [style_dim,w_dim] from w to the style of a layer. Raises UserError for a network without styles."""
        require_styles(self.config)
        raise NotImplementedError

    def activations(self, ws: Tensor, layer: int) -> Tensor:
        """ws [N,num_ws,ws_dim] -> output [N,C,H,W] of a layer. Raises UserError for a network without styles."""
        require_styles(self.config)
        raise NotImplementedError

    def backward_order(self) -> list[nn.Parameter]:
        """All parameters, in about the order in which a backward pass reaches them: the last to be used comes first."""
        return [*self.parameters()][::-1]

    @property
    def default_psi(self) -> float:
        """Default of the truncation psi: 0.7, or 1 without a w, as there is nothing to truncate."""
        return 0.7 if self.has_w else 1.0

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class GeneratorWithoutW(Generator):
    """A generator whose synthesis network takes z itself, together with the class."""

    has_w = False

    @property
    def mapping(self) -> MappingNetwork:  # type: ignore[override]
        raise UserError(_no_w(self.config))

    def latents(self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """z [N,z_dim], classes [N] -> input of the first layer [N,1,z_dim+num_classes]: z and the one-hot class.

        Raises UserError unless psi is 1, and if a conditional network gets no class.
        """
        if psi != 1:
            raise UserError(_no_w(self.config, f"leave out the truncation of {psi:g}"))
        x = z.float()
        if self.config.num_classes:
            x = torch.cat([x, class_weights(c, self.config.num_classes)], dim=1)
        return self.broadcast(self.prepared(x))

    def prepared(self, x: Tensor) -> Tensor:
        """z and the one-hot class [N,ws_dim] -> input of the first layer, of the same shape."""
        return x


def require_w(G: Generator, cure: str = "use a StyleGAN network for this") -> None:
    """Raises UserError for a generator without a w. cure: what the message proposes"""
    if not G.has_w:
        raise UserError(_no_w(G.config, cure))


def _no_w(config: NetworkConfig, cure: str = "use a StyleGAN network for this") -> str:
    return f"{config.TITLE} has no w, because it generates images from z directly; {cure}"


class Discriminator(nn.Module):
    """Images -> scores. The size of the images determines the resolution. A family sets `config`, `features`, `head`.

    A conditional one has an output for each class and returns that of the image's class (Mescheder et al. 2018).
    head: the last of the feature maps [N,C,h,w] -> outputs [N,num_outputs], float32
    """

    config: NetworkConfig
    head: Callable[[Tensor], Tensor]

    def forward(
        self, images: Tensor, c: Tensor | None = None, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """images [N,channels,H,W] in [-1, 1], classes [N] -> scores [N], float32; high means real.

        stage: only its alpha counts, the weight of the newest block; None for 1. dtype: of the feature maps.
        """
        return self.outputs(images, c, stage, dtype)[0]

    def outputs(
        self, images: Tensor, c: Tensor | None = None, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Scores [N] as from `forward`, and class logits [N,num_classes], or [N,0] without a classifier (AC-GAN)."""
        (x,) = deque(self.features(images, stage, dtype), maxlen=1)  # only the last
        return self.chosen(self.head(x), c)

    def backward_order(self) -> list[nn.Parameter]:
        """See `Generator.backward_order`."""
        return [*self.parameters()][::-1]

    @property
    def num_outputs(self) -> int:
        return max(self.config.num_classes, 1)

    def chosen(self, outputs: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs of the head [N,num_outputs] -> scores [N] and class logits, here [N,0]."""
        if not self.config.num_classes:
            return outputs[:, 0], outputs[:, 1:]
        return (outputs * class_weights(c, self.config.num_classes)).sum(dim=1), outputs[:, :0]

    def features(
        self, images: Tensor, stage: Stage | None = None, dtype: torch.dtype = torch.float32
    ) -> Iterator[Tensor]:
        """Yields the feature maps [N,C,H,W] one after another, from the first layer down to the base. See `forward`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A kind of network. A file of this folder defines it, and `registry.py` lists it.

    generator, discriminator: build a network with fresh weights from a config of the family
    widened: (name, weights of a narrower network, fresh weights, config) -> weights with which the wider network
    computes the same as the narrower one; None if the family has no such method
    image_layers: beginnings of the names of the layers to images (in a generator) and from images (in a discriminator),
    which are 1x1 convolutions with equalised learning rate; empty if they are of another kind
    """

    name: str
    config: type[Config]
    generator: Callable[[Config], Generator]
    discriminator: Callable[[Config], Discriminator]
    widened: Callable[[str, Tensor, Tensor, NetworkConfig], Tensor] | None = None
    image_layers: tuple[str, ...] = ()
