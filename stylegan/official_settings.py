"""Arguments of the published network functions as a ModelConfig, with the published default where one is absent."""

from __future__ import annotations

import reprlib
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from stylegan.config import Activation, ModelConfig, progan_config
from stylegan.official_variables import Fused
from torch_utils.errors import UserError

T = TypeVar("T")


def stylegan_generator_config(settings: dict[str, Any]) -> ModelConfig:
    """Of `G_style`. Raises UserError for what ours cannot be."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0})
    return ModelConfig(
        resolution=_setting(settings, "resolution", 1024),
        channels=_setting(settings, "num_channels", 3, least=1),
        num_classes=_setting(settings, "label_size", 0),
        z_dim=_setting(settings, "latent_size", 512, least=1),
        w_dim=_setting(settings, "dlatent_size", 512, least=1),
        mapping_layers=_setting(settings, "mapping_layers", 8),
        mapping_dim=_setting(settings, "mapping_fmaps", 512, least=1),
        mapping_lr_mul=_setting(settings, "mapping_lrmul", 0.01),
        mapping_activation=_activation(settings, "mapping_nonlinearity"),
        normalize_z=_setting(settings, "normalize_latents", True),
        fmap_base=_fmap_base(settings),
        fmap_max=_setting(settings, "fmap_max", 512, least=1),
        activation=_activation(settings, "nonlinearity"),
        blur=_blur(settings),
        styles=_setting(settings, "use_styles", True),
        const_input=_setting(settings, "const_input_layer", True),
        noise=_setting(settings, "use_noise", True),
        pixel_norm=_setting(settings, "use_pixel_norm", False),
        instance_norm=_setting(settings, "use_instance_norm", True),
    )


def progan_generator_config(settings: dict[str, Any]) -> ModelConfig:
    """Of `G_paper`. Raises UserError for what ours cannot be."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0, "pixelnorm_epsilon": 1e-8})
    fmap_max = _setting(settings, "fmap_max", 512, least=1)
    widest = min(_setting(settings, "fmap_base", 8192, least=1), fmap_max)
    cfg = progan_config(
        resolution=_setting(settings, "resolution", 32),
        channels=_setting(settings, "num_channels", 1, least=1),
        num_classes=_setting(settings, "label_size", 0),
        z_dim=widest if settings.get("latent_size") is None else _setting(settings, "latent_size", widest, least=1),
        fmap_base=_fmap_base(settings),
        fmap_max=fmap_max,
    )
    return replace(
        cfg,
        normalize_z=_setting(settings, "normalize_latents", True),
        pixel_norm=_setting(settings, "use_pixelnorm", True),
        activation="lrelu" if _setting(settings, "use_leakyrelu", True) else "relu",
    )


def discriminator_config(function: str, settings: dict[str, Any]) -> ModelConfig:
    """Of `D_basic` (StyleGAN) or `D_paper` (ProGAN): a config whose generator half means nothing."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0})
    basic = function == "D_basic"
    return ModelConfig(
        family="stylegan" if basic else "progan",
        resolution=_setting(settings, "resolution", 32),
        channels=_setting(settings, "num_channels", 1, least=1),
        num_classes=_setting(settings, "label_size", 0),
        fmap_base=_fmap_base(settings),
        fmap_max=_setting(settings, "fmap_max", 512, least=1),
        activation=_activation(settings, "nonlinearity"),
        blur=_blur(settings) if basic else (),
        mbstd_group=_setting(settings, "mbstd_group_size", 4),
        mbstd_features=_setting(settings, "mbstd_num_features", 1, least=1),
    )


def fused(settings: dict[str, Any], default: bool | str) -> Fused:
    """Which resolutions have their scaling inside a convolution: all, none, or ("auto") those from 128 up."""
    choice = settings.get("fused_scale", default)
    if choice not in (True, False, "auto"):
        raise UserError(f"setting fused_scale is {_shown(choice)}; it can be True, False or 'auto'")
    return lambda resolution: resolution >= 128 if choice == "auto" else bool(choice)


def _setting(settings: dict[str, Any], name: str, default: T, least: int = 0) -> T:
    """One argument. Raises UserError if it has another type or size than it can have."""
    value = settings.get(name, default)
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) is not type(default) or (isinstance(value, int) and not least <= value < 1 << 20):
        raise UserError(f"setting {name} is {_shown(value)}; the published networks cannot have that")
    return value


def _require(settings: dict[str, Any], values: dict[str, bool | float]) -> None:
    for name, value in values.items():
        if settings.get(name, value) != value:
            raise UserError(f"setting {name} is {_shown(settings[name])}; only {value} is supported")


def _shown(value: Any) -> str:
    """A value from the file, however deep or large it is, in a few letters."""
    return ascii(reprlib.repr(value))[1:-1][:60]


def _fmap_base(settings: dict[str, Any]) -> int:
    """Theirs is divided by half the resolution, ours by the resolution."""
    return 2 * _setting(settings, "fmap_base", 8192, least=1)


def _blur(settings: dict[str, Any]) -> tuple[float, ...]:
    taps = settings.get("blur_filter", [1, 2, 1])
    if taps is None:
        return ()
    if not isinstance(taps, (list, tuple)) or len(taps) > 64 or not all(isinstance(t, (int, float)) for t in taps):
        raise UserError(f"setting blur_filter is {_shown(taps)}; it can be None or some numbers")
    return tuple(taps)


def _activation(settings: dict[str, Any], name: str) -> Activation:
    value = _setting(settings, name, "lrelu")
    if value not in ("lrelu", "relu"):
        raise UserError(f"setting {name} is {_shown(value)}; it can be 'lrelu' or 'relu'")
    return cast(Activation, value)
