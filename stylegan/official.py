"""The published network files of StyleGAN and ProGAN, as configs and state dicts of ours.

The files are pickles of TensorFlow days; `stylegan.unpickle` reads them without running anything. What is here finds
the config that the file's settings mean, and refuses a network of which it cannot account for every variable.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from stylegan.buildable import require_buildable
from stylegan.config import ModelConfig
from stylegan.networks import build_discriminator, build_generator
from stylegan.official_settings import discriminator_config, fused, progan_generator_config, stylegan_generator_config
from stylegan.official_variables import State, Variables, discriminator_state, mapping_state, synthesis_state
from stylegan.snapshot import Snapshot
from stylegan.unpickle import Array, Record, read_pickle
from torch_utils.errors import UserError

Kind = Literal["generator", "discriminator"]
MOST_COMPONENTS, LONGEST = 8, 200  # of a published network: there are two; and letters of a name


@dataclass(frozen=True)
class OfficialNetwork:
    """One network of a file. `state` fits a network built from `config`; it has grown to (resolution, alpha)."""

    kind: Kind
    config: ModelConfig
    state: State
    resolution: int
    alpha: float


@dataclass(frozen=True)
class OfficialFile:
    """The training generator, the discriminator, and the averaged generator: the one that makes the pictures."""

    G: OfficialNetwork
    D: OfficialNetwork
    G_ema: OfficialNetwork

    @property
    def config(self) -> ModelConfig:
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
    G.synthesis.grown = (file.G_ema.resolution, file.G_ema.alpha)
    if D is not None:
        D.load_state_dict(file.D.state)
        D.eval().requires_grad_(False)
    kimg = re.search(r"network-snapshot-0*(\d+)", path.name)
    return Snapshot(
        G=G.eval().requires_grad_(False),
        D=D,
        config=config,
        resolution=file.G_ema.resolution,
        alpha=file.G_ema.alpha,
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
        state = mapping_state(source, cfg) | synthesis_state(source, cfg, fused(settings, "auto"))
        source.take("G_synthesis/lod", ndim=0)  # follows the one outside
    elif function == "G_paper":
        cfg = progan_generator_config(settings)
        state = synthesis_state(source, cfg, fused(settings, True))
    elif function in ("D_basic", "D_paper"):
        kind = "discriminator"
        cfg = discriminator_config(function, settings)
        state = discriminator_state(source, cfg, fused(settings, "auto" if function == "D_basic" else True))
    else:
        raise UserError(f"it has a network {ascii(function)[:60]}; only those of StyleGAN and ProGAN can be read")
    resolution, alpha = growth(cfg.resolution, source.take("lod", ndim=0).item())
    source.expect_all_taken()
    _check_shapes(state, kind, cfg)
    return OfficialNetwork(kind, cfg, state, resolution, alpha)


def growth(full: int, lod: float) -> tuple[int, float]:
    """Resolution and alpha of a published level of detail: 0 is `full`, 2 is full/4, and 1.7 is on the way from there
    to full/2, faded in by 0.3. Raises UserError if there is no such level."""
    if not 0 <= lod <= math.log2(full // 4):
        raise UserError(f"level of detail {lod} does not exist at resolution {full}")
    return full >> math.floor(lod), 1.0 - (lod - math.floor(lod))


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


def _check_shapes(state: State, kind: Kind, cfg: ModelConfig) -> None:
    """Raises UserError unless the state is exactly what a network of this config has."""
    require_buildable(cfg)
    with torch.device("meta"):  # shapes only, no memory
        module = build_generator(cfg) if kind == "generator" else build_discriminator(cfg)
    expected = module.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = state.get(name), expected.get(name)
        if found is None or wanted is None or found.shape != wanted.shape:
            raise UserError(f"its settings and its {name} disagree; the network is not as published")
