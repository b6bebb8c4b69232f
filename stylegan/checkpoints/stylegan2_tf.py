"""The published TensorFlow networks of StyleGAN2 that do not grow (configs E and F), as ours.

Ours have the other names of StyleGAN2-ADA and its axis orders. A style is stored without the 1 that ours contains, and
the kernels of upsampling convolutions are turned round.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from stylegan.checkpoints.variables import (
    Settings,
    State,
    Variables,
    activation,
    filter_taps,
    require_settings,
    setting,
    shown_briefly,
)
from stylegan.networks.stylegan2 import Architecture, StyleGAN2Config
from torch_utils.errors import UserError

GROWING = "it is a StyleGAN2 that grows (configs B to D), which this version cannot read; use one of config E or F"


def generator(source: Variables, settings: Settings) -> tuple[StyleGAN2Config, State]:
    """The config and the state of `G_main`. Raises UserError for a setting that is not supported."""
    if setting(settings, "synthesis_func", "G_synthesis_stylegan2") != "G_synthesis_stylegan2":
        raise UserError(GROWING)
    config = StyleGAN2Config(
        **_shared(settings),
        z_dim=setting(settings, "latent_size", 512, least=1),
        w_dim=setting(settings, "dlatent_size", 512, least=1),
        mapping_layers=setting(settings, "mapping_layers", 8),
        mapping_dim=setting(settings, "mapping_fmaps", 512, least=1),
        mapping_lr_mul=setting(settings, "mapping_lrmul", 0.01),
        mapping_activation=activation(settings, "mapping_nonlinearity"),
        normalize_z=setting(settings, "normalize_latents", True),
        architecture=_architecture(settings, "skip"),
    )
    state = {"mapping.w_avg": source.take("dlatent_avg")}
    for index in range(config.mapping_layers):
        state |= _dense(source, f"mapping.layers.{index}", f"G_mapping/Dense{index}")
    state["synthesis.const"] = source.take("G_synthesis/4x4/Const/const", ndim=4)
    number = 0
    for res in config.resolutions:
        block, count = f"G_synthesis/{res}x{res}", len(config.conv_inputs(res))
        for k in range(count):
            ours = f"synthesis.convs.{res}.{k}"
            name = "Conv" if res == 4 else ("Conv0_up", "Conv1")[k]
            state |= _modulated(source, ours, f"{block}/{name}", turned=name == "Conv0_up")
            state[f"{ours}.noise_strength"] = source.take(f"{block}/{name}/noise_strength", ndim=0)
            state[f"{ours}.noise"] = source.take(f"G_synthesis/noise{number}", ndim=4)
            number += 1
        if res in config.image_resolutions:
            state |= _modulated(source, f"synthesis.to_rgb.{res}", f"{block}/ToRGB")
        if config.architecture == "resnet" and res > 4:
            state[f"synthesis.shortcuts.{res}.weight"] = source.conv(f"{block}/Skip/weight")
    return config, state


def discriminator(source: Variables, settings: Settings) -> tuple[StyleGAN2Config, State]:
    """The config and the state of `D_stylegan2`. Settings that only the generator uses are defaults."""
    config = StyleGAN2Config(
        **_shared(settings),
        d_architecture=_architecture(settings, "resnet"),
        mbstd_group=setting(settings, "mbstd_group_size", 4),
        mbstd_features=setting(settings, "mbstd_num_features", 1, least=1),
    )
    state: State = {}
    for res in config.resolutions:
        block = f"{res}x{res}"
        if config.d_architecture == "skip" or res == config.resolution:
            state |= _conv(source, f"from_rgb.{res}", f"{block}/FromRGB")
        if res > 4:
            state |= _conv(source, f"blocks.{res}.conv0", f"{block}/Conv0")
            state |= _conv(source, f"blocks.{res}.conv1", f"{block}/Conv1_down")
            if config.d_architecture == "resnet":
                state[f"blocks.{res}.shortcut.weight"] = source.conv(f"{block}/Skip/weight")
    state |= _conv(source, "head.conv", "4x4/Conv")
    state |= _dense(source, "head.dense0", "4x4/Dense0") | _dense(source, "head.dense1", "Output")
    return config, state


def _shared(settings: Settings) -> Settings:
    """The part of a config that comes from arguments of both functions."""
    require_settings(settings, {"fmap_decay": 1.0, "fmap_min": 1})
    if setting(settings, "label_size", 0):
        raise UserError("it is a StyleGAN2 (TensorFlow) with classes, which this version cannot read")
    return {
        "resolution": setting(settings, "resolution", 1024),
        "channels": setting(settings, "num_channels", 3, least=1),
        # The published value is divided by half the resolution, ours by the resolution.
        "fmap_base": 2 * setting(settings, "fmap_base", 16384, least=1),
        "fmap_max": setting(settings, "fmap_max", 512, least=1),
        "activation": activation(settings, "nonlinearity"),
        "resample_filter": filter_taps(settings, "resample_kernel", (1, 3, 3, 1)),
    }


def _architecture(settings: Settings, default: Architecture) -> Architecture:
    value = setting(settings, "architecture", str(default))
    if value not in ("skip", "resnet", "orig"):
        raise UserError(f"setting architecture must be skip, resnet or orig, got {shown_briefly(value)}")
    return cast(Architecture, value)


def _modulated(source: Variables, ours: str, name: str, turned: bool = False) -> State:
    """A modulated convolution. turned: whether its kernel is the other way round than ours"""
    weight: Tensor = source.conv(f"{name}/weight")
    return {
        f"{ours}.weight": weight.flip(2, 3) if turned else weight,
        f"{ours}.bias": source.take(f"{name}/bias"),
        f"{ours}.style.weight": source.dense(f"{name}/mod_weight"),
        f"{ours}.style.bias": source.take(f"{name}/mod_bias") + 1,
    }


def _conv(source: Variables, ours: str, name: str) -> State:
    return {f"{ours}.weight": source.conv(f"{name}/weight"), f"{ours}.bias": source.take(f"{name}/bias")}


def _dense(source: Variables, ours: str, name: str) -> State:
    return {f"{ours}.weight": source.dense(f"{name}/weight"), f"{ours}.bias": source.take(f"{name}/bias")}
