"""Variables of the published TensorFlow networks as state dicts of ours: other names, other axis orders."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.checkpoints.unpickle import Array, Record, read_pickle
from stylegan.networks.config import Stage
from stylegan.networks.limits import require_buildable
from stylegan.networks.mapping import Activation
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

State = dict[str, Tensor]
Fused = Callable[[int], bool]
"""Whether the published network scales inside the convolution that goes to, or comes from, this resolution."""


@dataclass(frozen=True)
class Naming:
    """How the two published code bases name and store what ours has once.

    prefix: of the synthesis network's variables   one_name: convolutions that change the resolution have one name,
    fused or not   transposed: axes of the kernels of fused upsampling convolutions
    """

    prefix: str
    one_name: bool
    transposed: str


STYLEGAN, PROGAN = Naming("G_synthesis/", True, "hwio"), Naming("", False, "hwoi")


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


def mapping_state(source: Variables, cfg: StyleGAN1Config) -> State:
    """StyleGAN's mapping network and its average w, which is one for all classes."""
    state = {"mapping.w_avg": source.take("dlatent_avg")}
    if cfg.num_classes:
        state["mapping.w_avg"] = state["mapping.w_avg"].repeat(cfg.num_classes, 1)
        state["mapping.embed"] = source.take("G_mapping/LabelConcat/weight", ndim=2)
    for index in range(cfg.mapping_layers):
        state[f"mapping.layers.{index}.weight"] = source.dense(f"G_mapping/Dense{index}/weight")
        state[f"mapping.layers.{index}.bias"] = source.take(f"G_mapping/Dense{index}/bias")
    return state


def synthesis_state(source: Variables, cfg: StyleGAN1Config, fused: Fused, naming: Naming) -> State:
    """The synthesis network of StyleGAN, or the generator of ProGAN, which is the same with less."""
    prefix = naming.prefix
    state: State = {}
    for index, res in enumerate(cfg.resolutions):
        for half in range(2):
            name = f"{prefix}{res}x{res}/{_layer_name(cfg, res, half, fused(res) or naming.one_name)}"
            ours = f"synthesis.blocks.{res}.{half}."
            state |= {ours + key: value for key, value in _layer(source, cfg, name, fused(res), naming).items()}
            if cfg.noise:
                state[ours + "noise"] = source.take(f"{prefix}noise{2 * index + half}", ndim=4)
        state |= _conv(
            source, f"synthesis.to_rgb.{res}", f"{prefix}ToRGB_lod{cfg.resolution.bit_length() - res.bit_length()}"
        )
    return state


def discriminator_state(source: Variables, cfg: StyleGAN1Config, fused: Fused, naming: Naming) -> State:
    """The discriminator of either family. Its fused convolutions equal the plain ones, so nothing is flipped."""
    state: State = {}
    for res in cfg.resolutions:
        state |= _conv(source, f"from_rgb.{res}", f"FromRGB_lod{cfg.resolution.bit_length() - res.bit_length()}")
        if res > 4:
            second = "Conv1_down" if naming.one_name or fused(res) else "Conv1"
            state |= _conv(source, f"blocks.{res}.conv0", f"{res}x{res}/Conv0")
            state |= _conv(source, f"blocks.{res}.conv1", f"{res}x{res}/{second}")
    state |= _conv(source, "head.conv", "4x4/Conv")
    for index in range(2):
        state[f"head.dense{index}.weight"] = source.dense(f"4x4/Dense{index}/weight")
        state[f"head.dense{index}.bias"] = source.take(f"4x4/Dense{index}/bias")
    return state


def _layer_name(cfg: StyleGAN1Config, resolution: int, half: int, scales: bool) -> str:
    if resolution == 4:
        first = "Const" if cfg.const_input else "Dense"
        return (first, "Conv")[half]
    return ("Conv0_up" if scales else "Conv0", "Conv1")[half]


def _layer(source: Variables, cfg: StyleGAN1Config, name: str, fused: bool, naming: Naming) -> State:
    """One style layer: its weight, bias, noise strength and style."""
    state = {"bias": source.take(f"{name}/bias")}
    if name.endswith("Const"):
        state["const"] = source.take(f"{name}/const", ndim=4)
    elif name.endswith("Dense"):
        state["weight"] = source.dense(f"{name}/weight")
    elif name.endswith("Conv0_up") and fused:
        # A transposed convolution: it applies the kernel the other way round from ours; ProGAN stores it transposed.
        state["weight"] = source.conv(f"{name}/weight", naming.transposed).flip(2, 3)
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


# Arguments of the published network functions as a StyleGAN1Config, with the published default where one is absent


T = TypeVar("T")


def stylegan_generator_config(settings: dict[str, Any]) -> StyleGAN1Config:
    """Of `G_style`. Raises UserError for what ours cannot be."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0})
    return StyleGAN1Config(
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


def progan_generator_config(settings: dict[str, Any]) -> StyleGAN1Config:
    """Of `G_paper`. Raises UserError for what ours cannot be."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0, "pixelnorm_epsilon": 1e-8})
    fmap_max = _setting(settings, "fmap_max", 512, least=1)
    widest = min(_setting(settings, "fmap_base", 8192, least=1), fmap_max)
    return ProGANConfig(
        resolution=_setting(settings, "resolution", 32),
        channels=_setting(settings, "num_channels", 1, least=1),
        num_classes=_setting(settings, "label_size", 0),
        z_dim=widest if settings.get("latent_size") is None else _setting(settings, "latent_size", widest, least=1),
        fmap_base=_fmap_base(settings),
        fmap_max=fmap_max,
        normalize_z=_setting(settings, "normalize_latents", True),
        pixel_norm=_setting(settings, "use_pixelnorm", True),
        activation="lrelu" if _setting(settings, "use_leakyrelu", True) else "relu",
    )


def discriminator_config(function: str, settings: dict[str, Any]) -> StyleGAN1Config:
    """Of `D_basic` (StyleGAN) or `D_paper` (ProGAN): a config whose generator half means nothing."""
    _require(settings, {"use_wscale": True, "fmap_decay": 1.0})
    basic = function == "D_basic"
    build = StyleGAN1Config if basic else ProGANConfig
    return build(
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


# The published network files of StyleGAN and ProGAN, as configs and state dicts of ours


Kind = Literal["generator", "discriminator"]
MOST_COMPONENTS, LONGEST = 8, 200  # of a published network: there are two; and letters of a name


@dataclass(frozen=True)
class OfficialNetwork:
    """One network of a file. `state` fits a network built from `config`; it has grown to `stage`."""

    kind: Kind
    config: StyleGAN1Config
    state: State
    stage: Stage


@dataclass(frozen=True)
class OfficialFile:
    """The training generator, the discriminator, and the averaged generator: the one that makes the pictures."""

    G: OfficialNetwork
    D: OfficialNetwork
    G_ema: OfficialNetwork

    @property
    def config(self) -> StyleGAN1Config:
        """One config for all three. Raises UserError where generator and discriminator were built differently."""
        ours, other = self.G_ema.config, self.D.config
        shared = ("family", "resolution", "channels", "num_classes", "fmap_base", "fmap_max", "activation", "blur")
        differ = [name for name in shared if getattr(ours, name) != getattr(other, name)]
        if differ:
            raise UserError(f"generator and discriminator differ in {', '.join(differ)}; convert the generator alone")
        return replace(ours, mbstd_group=other.mbstd_group, mbstd_features=other.mbstd_features)


def read_official(path: Path | str) -> OfficialFile:
    """Opens a published file: karras2019stylegan-*.pkl, karras2018iclr-*.pkl, or network-snapshot-*.pkl of either.

    Raises UserError on anything else. No code in the file is run.
    """
    content = read_pickle(Path(path))
    try:
        if not isinstance(content, (tuple, list)) or len(content) != 3:
            raise UserError("it does not hold three networks, so it is no network file of StyleGAN or ProGAN")
        G, D, G_ema = (_network(record) for record in content)
        if (G.kind, D.kind, G_ema.kind) != ("generator", "discriminator", "generator"):
            raise UserError("its networks are not a generator, a discriminator and an average")
    except UserError as err:
        raise UserError(f"{path}: {err}") from err
    return OfficialFile(G, D, G_ema)


def load_official(path: Path | str, with_d: bool = False) -> Snapshot:
    """A published file as a snapshot of ours, with its averaged generator, in eval mode and without gradients.

    Raises UserError on any other file, and for `with_d` if the discriminator was not built for this generator.
    """
    path = Path(path)
    file = read_official(path)
    config = file.config if with_d else file.G_ema.config
    G, D = build_generator(config), build_discriminator(config) if with_d else None
    G.load_state_dict(file.G_ema.state)
    if D is not None:
        D.load_state_dict(file.D.state)
        D.eval().requires_grad_(False)
    kimg = re.search(r"network-snapshot-0*(\d+)", path.name)
    return Snapshot(
        G=G.eval().requires_grad_(False),
        D=D,
        config=config,
        stage=file.G_ema.stage,
        kimg=float(kimg[1]) if kimg else 0.0,
        data=path.stem,
    )


def translate(function: str, settings: dict[str, Any], variables: dict[str, np.ndarray]) -> OfficialNetwork:
    """A network from the name of the published function that built it, its arguments, and its variables.

    Variables of a component bear its name: "G_mapping/Dense0/weight". Raises UserError where anything does not fit.
    """
    source = Variables(variables)
    kind: Kind = "generator"
    if function == "G_style":
        cfg = stylegan_generator_config(settings)
        state = mapping_state(source, cfg) | synthesis_state(source, cfg, fused(settings, "auto"), STYLEGAN)
        source.take("G_synthesis/lod", ndim=0)  # follows the one outside
    elif function == "G_paper":
        cfg = progan_generator_config(settings)
        state = synthesis_state(source, cfg, fused(settings, True), PROGAN)
    elif function in ("D_basic", "D_paper"):
        kind = "discriminator"
        cfg = discriminator_config(function, settings)
        default, naming = ("auto", STYLEGAN) if function == "D_basic" else (True, PROGAN)
        state = discriminator_state(source, cfg, fused(settings, default), naming)
    else:
        raise UserError(f"it has a network {ascii(function)[:60]}; only those of StyleGAN and ProGAN can be read")
    stage = growth(cfg.resolution, source.take("lod", ndim=0).item())
    source.expect_all_taken()
    _check_shapes(state, kind, cfg)
    return OfficialNetwork(kind, cfg, state, stage)


def growth(full: int, lod: float) -> Stage:
    """The stage of a published level of detail: 0 is `full`, 2 is full/4, and 1.7 is on the way from there
    to full/2, faded in by 0.3. Raises UserError if there is no such level."""
    if not 0 <= lod <= math.log2(full // 4):
        raise UserError(f"level of detail {lod} does not exist at resolution {full}")
    return Stage(full >> math.floor(lod), 1.0 - (lod - math.floor(lod)))


def _network(record: Any) -> OfficialNetwork:
    """A network from its record in the file, with the variables of its components."""
    state = _state(record)
    components = state.get("components")
    variables = _variables(state, "")
    for component in list(components.values())[:MOST_COMPONENTS] if isinstance(components, dict) else ():
        inner = _state(component)
        variables |= _variables(inner, f"{_text(inner, 'name')}/")
    if len({id(value) for value in variables.values()}) < len(variables):
        raise UserError("several of its variables are one and the same; the network is not as published")
    settings = state.get("static_kwargs")
    return translate(_text(state, "build_func_name"), settings if isinstance(settings, dict) else {}, variables)


def _text(state: dict[str, Any], name: str) -> str:
    """A short text; "" for anything else, whose writing out might never end."""
    value = state.get(name)
    return value if isinstance(value, str) and len(value) < LONGEST else ""


def _state(record: Any) -> dict[str, Any]:
    if not isinstance(record, Record) or not isinstance(record.state, dict):
        raise UserError("it holds something that is no network")
    return record.state


def _variables(state: dict[str, Any], prefix: str) -> dict[str, np.ndarray]:
    entries, result = state.get("variables"), {}
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case (str(name), Array(data=np.ndarray() as value) | (np.generic() as value)) if len(name) < LONGEST:
                result[prefix + name] = np.asarray(value)
            case _:
                raise UserError("it holds a variable without a name or a value")
    return result


def _check_shapes(state: State, kind: Kind, cfg: StyleGAN1Config) -> None:
    """Raises UserError unless the state is exactly what a network of this config has."""
    require_buildable(cfg)
    with torch.device("meta"):  # shapes only, no memory
        module = build_generator(cfg) if kind == "generator" else build_discriminator(cfg)
    expected = module.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = state.get(name), expected.get(name)
        if found is None or wanted is None or found.shape != wanted.shape:
            raise UserError(f"its settings and its {name} disagree; the network is not as published")
