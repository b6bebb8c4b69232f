"""ProGAN (Karras, Aila, Laine, Lehtinen 2018): StyleGAN's synthesis network without styles, with z as its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ops.resample import downsample_box
from stylegan.networks.base import Family, GeneratorWithoutW
from stylegan.networks.layers import EqualConv2d, pixel_norm
from stylegan.networks.stylegan1 import IMAGE_LAYERS, StyleGAN1Config, StyleGAN1Discriminator, SynthesisNetwork, widened
from torch_utils.errors import UserError

# The settings of StyleGAN that have only one possible value in ProGAN: the default.
FIXED = (
    "mapping_layers", "mapping_dim", "mapping_lr_mul", "mapping_activation", "blur", "styles", "const_input", "noise",
    "pixel_norm", "instance_norm", "style_mixing",
)  # fmt: skip


@dataclass(frozen=True)
class ProGANConfig(StyleGAN1Config):
    """The defaults are those of the paper for CelebA-HQ (table 2).

    fused_scale: a block of the discriminator averages 2x2 pixels within its second convolution, before bias and
    activation. Without, it averages after them, which is another function; the generator is the same either way.
    """

    family: str = "progan"
    w_dim: int = 0  # always z_dim + num_classes
    mapping_layers: int = 0
    blur: tuple[float, ...] = ()
    styles: bool = False
    const_input: bool = False
    noise: bool = False
    pixel_norm: bool = True
    instance_norm: bool = False
    style_mixing: float = 0.0
    fused_scale: bool = True

    TITLE: ClassVar[str] = "ProGAN"
    OWN: ClassVar[frozenset[str]] = StyleGAN1Config.OWN | {"w_dim"}

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "w_dim", self.z_dim + self.num_classes)

    def check(self) -> None:
        if any(getattr(self, name) != getattr(ProGANConfig, name) for name in FIXED):
            raise UserError(
                "ProGAN has no styles, mapping or noise; leave out --styles, --style-mixing-prob, --map-depth, "
                "--map-dim, --const-input, --noise, --pixel-norm, --instance-norm and --w-dim, or use another --cfg"
            )


class ProGANGenerator(GeneratorWithoutW):
    """The synthesis network of StyleGAN, whose first layer is a dense one of z, normalised, and the one-hot class."""

    config: ProGANConfig

    def __init__(self, config: ProGANConfig):
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)

    def prepared(self, x: Tensor) -> Tensor:
        return pixel_norm(x) if self.config.normalize_z else x


class UnfusedBlock(nn.Module):
    """Two convolutions with their activations, then an average of 2x2 pixels. [N,I,H,W] -> [N,O,H/2,W/2]."""

    def __init__(self, config: ProGANConfig, resolution: int):
        super().__init__()
        self.activation = config.activation
        channels = config.nf(resolution)
        self.conv0 = EqualConv2d(channels, channels, 3)
        self.conv1 = EqualConv2d(channels, config.nf(resolution // 2), 3)

    def forward(self, x: Tensor) -> Tensor:
        return downsample_box(self.conv1(self.conv0(x, self.activation), self.activation))


class ProGANDiscriminator(StyleGAN1Discriminator):
    """StyleGAN's discriminator with one score and the logits of a classifier (AC-GAN)."""

    def __init__(self, config: ProGANConfig):
        super().__init__(config)
        if not config.fused_scale:
            own = config.of_discriminator
            self.blocks = nn.ModuleDict({str(res): UnfusedBlock(own, res) for res in own.resolutions if res > 4})

    @property
    def num_outputs(self) -> int:
        return 1 + self.config.num_classes

    def chosen(self, outputs: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        return outputs[:, 0], outputs[:, 1:]


FAMILY = Family("progan", ProGANConfig, ProGANGenerator, ProGANDiscriminator, widened, IMAGE_LAYERS)
