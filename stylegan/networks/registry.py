"""All families of networks. To add one, write its file and list it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stylegan.networks import dcgan, progan, stylegan1
from stylegan.networks.base import Discriminator, Family, Generator
from stylegan.networks.config import NetworkConfig
from torch_utils.errors import UserError

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family for family in (stylegan1.FAMILY, progan.FAMILY, dcgan.FAMILY)
}


def family_of(name: str) -> Family[Any]:
    """Raises UserError for a family that there is not."""
    if name not in FAMILIES:
        raise UserError(f"unknown network family {name[:40]!r}; this version has {', '.join(FAMILIES)}")
    return FAMILIES[name]


def config_from_json(data: Any, name: str = "") -> NetworkConfig:
    """A config of the family that the data name.

    Raises UserError, naming the setting (dotted, below `name`), for unknown names and wrong types.
    """
    family = data.get("family", stylegan1.FAMILY.name) if isinstance(data, Mapping) else stylegan1.FAMILY.name
    if not isinstance(family, str):
        raise UserError(f"setting '{f'{name}.' if name else ''}family' must be the name of a network family")
    config: NetworkConfig = family_of(family).config.from_json(data, name)
    return config


def build_generator(config: NetworkConfig) -> Generator:
    """The generator of the config's family, with fresh weights."""
    G: Generator = family_of(config.family).generator(config)
    return G


def build_discriminator(config: NetworkConfig) -> Discriminator:
    """The discriminator of the config's family, with fresh weights."""
    D: Discriminator = family_of(config.family).discriminator(config)
    return D
