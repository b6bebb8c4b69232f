"""The published TensorFlow networks of StyleGAN and ProGAN: pickle files, read without running code, as ours.

    file -> read_pickle -> three records -> translate: settings -> config, variables -> state -> load_published

The sections below follow this order. A record names the function that built the network, its arguments (settings) and
its variables. Ours compute the same with other names, other axis orders, and kernels that are not flipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from stylegan.checkpoints import stylegan2_tf
from stylegan.checkpoints.foreign import ADVICE
from stylegan.checkpoints.snapshot import Snapshot, require_finite
from stylegan.checkpoints.unpickle import Array, Record, read_pickle
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
from stylegan.networks.config import NetworkConfig, Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_empty, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

Kind = Literal["generator", "discriminator"]
Network = TypeVar("Network", bound=nn.Module)


# Files


@dataclass(frozen=True)
class PublishedNetwork:
    """One network of a file: the weights `state` for a network of `config`, which has grown to `stage`."""

    kind: Kind
    config: NetworkConfig
    state: State
    stage: Stage


@dataclass(frozen=True)
class PublishedFile:
    """The generator that was trained, the discriminator, and the averaged generator, which generates the images."""

    G: PublishedNetwork
    D: PublishedNetwork
    G_ema: PublishedNetwork

    @property
    def config(self) -> NetworkConfig:
        """One config for all three. Raises UserError if generator and discriminator do not belong together."""
        config, other = self.G_ema.config, self.D.config
        shared = ("family", "resolution", "channels", "num_classes", "fmap_base", "fmap_max", "activation", "blur",
                  "resample_filter")  # fmt: skip
        differ = [name for name in shared if getattr(config, name, None) != getattr(other, name, None)]
        if differ:
            raise UserError(f"generator and discriminator differ in {', '.join(differ)}, which published ones do not")
        own = ("mbstd_group", "mbstd_features", "fused_scale", "d_architecture")  # of the discriminator alone
        return replace(config, **{name: getattr(other, name) for name in own if hasattr(other, name)})


def load_published(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a published file as a snapshot, with its averaged generator and its discriminator.

    Runs no code from the file. Raises UserError for any other file.
    """
    return snapshot_of(read_published(path), path, device)


def snapshot_of(file: PublishedFile, path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """The averaged generator and the discriminator of a file. Raises UserError if they do not belong together."""
    try:
        config = file.config
        G = with_state(build_generator, config, file.G_ema.state).to(device)
        D = with_state(build_discriminator, config, file.D.state).to(device)
    except UserError as err:
        raise UserError(f"{path}: {err}") from err
    return require_finite(Snapshot(G, D, config, file.G_ema.stage, kimg=kimg_in(path), data=path.stem), path)


def kimg_in(path: Path) -> float:
    """Thousands of images, from the name of a file network-snapshot-*.pkl; 0 for another name."""
    found = re.search(r"network-snapshot-0*(\d+)", path.name)
    return float(found[1]) if found else 0.0


def read_published(path: Path) -> PublishedFile:
    """Read karras2019stylegan-*.pkl, karras2018iclr-*.pkl, or network-snapshot-*.pkl of either project.

    Runs no code from the file. Raises UserError for any other file.
    """
    return published(read_pickle(path), path)


def published(content: Any, path: Path) -> PublishedFile:
    """The three networks of such a file, from its content. Raises UserError for any other content."""
    try:
        if not isinstance(content, (tuple, list)) or len(content) != 3:
            raise UserError("it does not contain three networks, as files of StyleGAN and ProGAN do")
        G, D, G_ema = (_network(record) for record in content)
        if (G.kind, D.kind, G_ema.kind) != ("generator", "discriminator", "generator"):
            raise UserError("its networks are not a generator, a discriminator and an averaged generator")
    except UserError as err:
        raise UserError(f"{path}: {err}") from err
    return PublishedFile(G, D, G_ema)


def with_state(build: Callable[[NetworkConfig], Network], config: NetworkConfig, state: State) -> Network:
    """A network with these weights. Raises UserError unless the state is exactly that of a network of this config."""
    net = build_empty(build, config)
    expected = net.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = state.get(name), expected.get(name)
        if found is None or wanted is None or found.shape != wanted.shape:
            raise UserError(f"its settings and its {name} contradict each other; the network is not as published")
    # clone: with the strides of a transposed matrix, products could be rounded differently.
    own = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    net.load_state_dict(own, assign=True)
    return net.eval().requires_grad_(False)


# Records


MAX_COMPONENTS = 8  # of a network; published ones have two
MAX_NAME = 200  # characters


def _network(record: Any) -> PublishedNetwork:
    """A network from its record in the file, with the variables of its components."""
    state = _state(record)
    components = state.get("components")
    variables = _variables(state, "")
    for component in list(components.values())[:MAX_COMPONENTS] if isinstance(components, dict) else ():
        inner = _state(component)
        variables |= _variables(inner, f"{_text(inner, 'name')}/")
    if len({id(value) for value in variables.values()}) < len(variables):
        raise UserError("some of its variables are identical; the network is not as published")
    settings = state.get("static_kwargs")
    return translate(_text(state, "build_func_name"), settings if isinstance(settings, dict) else {}, variables)


def _state(record: Any) -> dict[str, Any]:
    if not isinstance(record, Record) or not isinstance(record.state, dict):
        raise UserError("it contains something other than networks")
    return record.state


def _text(state: dict[str, Any], name: str) -> str:
    """A short text, or "" for anything else, which could take for ever to format."""
    value = state.get(name)
    return value if isinstance(value, str) and len(value) < MAX_NAME else ""


def _variables(state: dict[str, Any], prefix: str) -> dict[str, np.ndarray]:
    entries, result = state.get("variables"), {}
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case (str(name), Array(data=np.ndarray() as value) | (np.generic() as value)) if len(name) < MAX_NAME:
                result[prefix + name] = np.asarray(value)
            case _:
                raise UserError("it contains a variable without a name or without a value")
    return result


def translate(function: str, settings: Settings, variables: dict[str, np.ndarray]) -> PublishedNetwork:
    """A network from the name of the published function that built it, its arguments, and its variables.

    The names of a component's variables begin with its own: "G_mapping/Dense0/weight". Raises UserError if the function
    is unknown, an argument is not supported, or a variable is missing, unknown or has the wrong number of dimensions.
    """
    source = Variables(variables)
    kind: Kind = "generator"
    config: NetworkConfig
    if function == "G_style":
        config = own = stylegan_generator_config(settings)
        state = mapping_state(source, own) | synthesis_state(source, own, fused(settings, "auto"), STYLEGAN)
        source.take("G_synthesis/lod", ndim=0)  # always equals the outer one
    elif function == "G_paper":
        config = own = progan_generator_config(settings)
        state = synthesis_state(source, own, fused(settings, True), PROGAN)
    elif function in ("D_basic", "D_paper"):
        kind = "discriminator"
        config = own = discriminator_config(function, settings)
        default, naming = ("auto", STYLEGAN) if function == "D_basic" else (True, PROGAN)
        state = discriminator_state(source, own, fused(settings, default), naming)
    elif function == "G_main":
        config, state = stylegan2_tf.generator(source, settings)
    elif function == "D_stylegan2":
        kind = "discriminator"
        config, state = stylegan2_tf.discriminator(source, settings)
    elif function == "D_stylegan":
        raise UserError(stylegan2_tf.GROWING)
    else:
        raise UserError(f"it contains a network {ascii(function)[:60]}; {ADVICE}")
    grows = len(config.stages) > 1  # others have a level of detail in the file as well, which is 0
    lod = source.take("lod", ndim=0).item() if grows or "lod" in source.unused else 0.0
    stage = stage_of(config.resolution, lod)
    source.require_all_taken()
    return PublishedNetwork(kind, config, state, stage)


def stage_of(full: int, lod: float) -> Stage:
    """The stage of a published level of detail: 0 is `full`, 2 is full/4, and at 1.7 full/2 has faded in by 0.3.

    Raises UserError if there is no such level.
    """
    if not 0 <= lod <= math.log2(full // 4):
        raise UserError(f"there is no level of detail {lod} at resolution {full}; the network is not as published")
    return Stage(full >> math.floor(lod), 1.0 - (lod - math.floor(lod)))


# Settings: the arguments of the published functions as a config, with their defaults


def stylegan_generator_config(settings: Settings) -> StyleGAN1Config:
    """The config of `G_style`. Raises UserError for a setting that is not supported."""
    return StyleGAN1Config(
        **_shared(settings, resolution=1024, channels=3),
        z_dim=setting(settings, "latent_size", 512, least=1),
        w_dim=setting(settings, "dlatent_size", 512, least=1),
        mapping_layers=setting(settings, "mapping_layers", 8),
        mapping_dim=setting(settings, "mapping_fmaps", 512, least=1),
        mapping_lr_mul=setting(settings, "mapping_lrmul", 0.01),
        mapping_activation=activation(settings, "mapping_nonlinearity"),
        normalize_z=setting(settings, "normalize_latents", True),
        activation=activation(settings, "nonlinearity"),
        blur=filter_taps(settings, "blur_filter", (1, 2, 1)),
        styles=setting(settings, "use_styles", True),
        const_input=setting(settings, "const_input_layer", True),
        noise=setting(settings, "use_noise", True),
        pixel_norm=setting(settings, "use_pixel_norm", False),
        instance_norm=setting(settings, "use_instance_norm", True),
    )


def progan_generator_config(settings: Settings) -> StyleGAN1Config:
    """The config of `G_paper`. Raises UserError for a setting that is not supported."""
    require_settings(settings, {"pixelnorm_epsilon": 1e-8})
    shared = _shared(settings, resolution=32, channels=1)
    widest = min(shared["fmap_base"] // 2, shared["fmap_max"])
    return ProGANConfig(
        **shared,
        z_dim=widest if settings.get("latent_size") is None else setting(settings, "latent_size", widest, least=1),
        normalize_z=setting(settings, "normalize_latents", True),
        pixel_norm=setting(settings, "use_pixelnorm", True),
        activation="lrelu" if setting(settings, "use_leakyrelu", True) else "relu",
    )


def discriminator_config(function: str, settings: Settings) -> StyleGAN1Config:
    """The config of `D_basic` (StyleGAN) or `D_paper` (ProGAN). Settings that only the generator uses are defaults."""
    basic = function == "D_basic"
    # Where StyleGAN averages makes no difference, as it adds the bias afterwards.
    build = StyleGAN1Config if basic else partial(ProGANConfig, fused_scale=fused(settings, True)(4))
    return build(
        **_shared(settings, resolution=32, channels=1),
        activation=activation(settings, "nonlinearity"),
        blur=filter_taps(settings, "blur_filter", (1, 2, 1)) if basic else (),
        mbstd_group=setting(settings, "mbstd_group_size", 4),
        mbstd_features=setting(settings, "mbstd_num_features", 1, least=1),
    )


def _shared(settings: Settings, resolution: int, channels: int) -> Settings:
    """The part of a config that comes from arguments of every published function. resolution, channels: defaults."""
    require_settings(settings, {"use_wscale": True, "fmap_decay": 1.0})
    return {
        "resolution": setting(settings, "resolution", resolution),
        "channels": setting(settings, "num_channels", channels, least=1),
        "num_classes": setting(settings, "label_size", 0),
        # The published value is divided by half the resolution, ours by the resolution.
        "fmap_base": 2 * setting(settings, "fmap_base", 8192, least=1),
        "fmap_max": setting(settings, "fmap_max", 512, least=1),
    }


Fused = Callable[[int], bool]
"""Whether the published network scales inside the convolution to, or from, a resolution."""


def fused(settings: Settings, default: bool | str) -> Fused:
    """At which resolutions scaling happens inside a convolution: all, none, or ("auto") those from 128 up."""
    choice = settings.get("fused_scale", default)
    possible = (True, False, "auto") if default == "auto" else (True, False)
    if choice not in possible:
        raise UserError(f"setting fused_scale must be {' or '.join(map(repr, possible))}, got {shown_briefly(choice)}")
    return lambda resolution: resolution >= 128 if choice == "auto" else bool(choice)


# Variables, as state dicts of our networks


@dataclass(frozen=True)
class Naming:
    """How the two published code bases name and store the same things.

    prefix: of the variables of the synthesis network
    one_name: convolutions that change the resolution have the same name whether they are fused or not
    transposed: axes of the kernels of fused upsampling convolutions
    """

    prefix: str
    one_name: bool
    transposed: str


STYLEGAN, PROGAN = Naming("G_synthesis/", True, "hwio"), Naming("", False, "hwoi")


def mapping_state(source: Variables, config: StyleGAN1Config) -> State:
    """StyleGAN's mapping network with its average w, which is the same for all classes."""
    state = {"mapping.w_avg": source.take("dlatent_avg")}
    if config.num_classes:
        state["mapping.w_avg"] = state["mapping.w_avg"].repeat(config.num_classes, 1)
        state["mapping.embed"] = source.take("G_mapping/LabelConcat/weight", ndim=2)
    for index in range(config.mapping_layers):
        state[f"mapping.layers.{index}.weight"] = source.dense(f"G_mapping/Dense{index}/weight")
        state[f"mapping.layers.{index}.bias"] = source.take(f"G_mapping/Dense{index}/bias")
    return state


def synthesis_state(source: Variables, config: StyleGAN1Config, fused: Fused, naming: Naming) -> State:
    """The synthesis network of StyleGAN, or the generator of ProGAN, which is the same with fewer parts."""
    prefix = naming.prefix
    state: State = {}
    for index, res in enumerate(config.resolutions):
        for k in range(2):
            name = f"{prefix}{res}x{res}/{_layer_name(config, res, k, fused(res) or naming.one_name)}"
            ours = f"synthesis.blocks.{res}.{k}."
            state |= {ours + key: value for key, value in _layer(source, config, name, fused(res), naming).items()}
            if config.noise:
                state[ours + "noise"] = source.take(f"{prefix}noise{2 * index + k}", ndim=4)
        state |= _conv(source, f"synthesis.to_rgb.{res}", f"{prefix}ToRGB_lod{_lod(config, res)}")
    return state


def discriminator_state(source: Variables, config: StyleGAN1Config, fused: Fused, naming: Naming) -> State:
    """The discriminator of either family. Its fused convolutions equal the plain ones, so no kernel is flipped."""
    state: State = {}
    for res in config.resolutions:
        state |= _conv(source, f"from_rgb.{res}", f"FromRGB_lod{_lod(config, res)}")
        if res > 4:
            second = "Conv1_down" if naming.one_name or fused(res) else "Conv1"
            state |= _conv(source, f"blocks.{res}.conv0", f"{res}x{res}/Conv0")
            state |= _conv(source, f"blocks.{res}.conv1", f"{res}x{res}/{second}")
    state |= _conv(source, "head.conv", "4x4/Conv")
    for index in range(2):
        state[f"head.dense{index}.weight"] = source.dense(f"4x4/Dense{index}/weight")
        state[f"head.dense{index}.bias"] = source.take(f"4x4/Dense{index}/bias")
    return state


def _lod(config: StyleGAN1Config, resolution: int) -> int:
    """The published level of detail of a resolution."""
    return config.resolution.bit_length() - resolution.bit_length()


def _layer_name(config: StyleGAN1Config, resolution: int, k: int, scales: bool) -> str:
    """The published name of the first (k = 0) or second layer of a resolution."""
    if resolution == 4:
        return ("Const" if config.const_input else "Dense", "Conv")[k]
    return ("Conv0_up" if scales else "Conv0", "Conv1")[k]


def _layer(source: Variables, config: StyleGAN1Config, name: str, fused: bool, naming: Naming) -> State:
    """One style layer: its weight, bias, noise strength and style."""
    state = {"bias": source.take(f"{name}/bias")}
    if name.endswith("Const"):
        state["const"] = source.take(f"{name}/const", ndim=4)
    elif name.endswith("Dense"):
        state["weight"] = source.dense(f"{name}/weight")
    elif name.endswith("Conv0_up") and fused:
        # A transposed convolution applies its kernel flipped, compared with ours. ProGAN stores it transposed as well.
        state["weight"] = source.conv(f"{name}/weight", naming.transposed).flip(2, 3)
    else:
        state["weight"] = source.conv(f"{name}/weight")
    if config.noise:
        state["noise_strength"] = source.take(f"{name}/Noise/weight")
    if config.styles:
        state["style.weight"] = source.dense(f"{name}/StyleMod/weight")
        state["style.bias"] = source.take(f"{name}/StyleMod/bias")
    return state


def _conv(source: Variables, ours: str, name: str) -> State:
    return {f"{ours}.weight": source.conv(f"{name}/weight"), f"{ours}.bias": source.take(f"{name}/bias")}
