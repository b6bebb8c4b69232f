"""The networks of StyleGAN2-ADA (PyTorch): pickle files, read without running code, as ours.

    file -> read_pickle -> records -> parts of a network: settings -> config, tensors -> state -> snapshot

Such a file holds G, D and G_ema as objects with their source text, which nobody runs here. What a network is follows
from the attributes of its parts and from the shapes of its tensors. Ours compute the same with other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan.checkpoints import tensorflow
from stylegan.checkpoints.foreign import ADVICE
from stylegan.checkpoints.snapshot import Snapshot, require_finite
from stylegan.checkpoints.tensorflow import kimg_in, with_state
from stylegan.checkpoints.unpickle import Array, Record, read_pickle
from stylegan.checkpoints.variables import Settings, State, setting, shown_briefly
from stylegan.networks.config import WIDEST
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan2 import StyleGAN2Config
from torch_utils.errors import UserError
from torch_utils.untrusted import excess

MAX_PARTS = 2000  # of a network; those of 1024x1024 have about a hundred
MAX_DEPTH = 8


def load_pickle(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Open a published network, of PyTorch or TensorFlow, with its averaged generator and its discriminator.

    Runs no code from the file. Raises UserError for any other file.
    """
    content = read_pickle(path)
    if not isinstance(content, dict):
        return tensorflow.snapshot_of(tensorflow.published(content, path), path, device)
    try:
        found = _snapshot(content, path, device)
    except UserError as err:
        raise UserError(f"{path}: {err}") from err
    return require_finite(found, path)


def _snapshot(content: dict[Any, Any], path: Path, device: torch.device | str) -> Snapshot:
    if not isinstance(content.get("G_ema"), Record):
        tensors = any(isinstance(value, Array) for value in content.values())
        raise UserError(f"it is {'a pickle of PyTorch tensors' if tensors else 'no network'}; {ADVICE}")
    G = Parts(content["G_ema"])
    D = Parts(content["D"]) if isinstance(content.get("D"), Record) else None
    config = config_of(G, D)
    return Snapshot(
        with_state(build_generator, config, state_of(G.tensors, GENERATOR)).to(device),
        None if D is None else with_state(build_discriminator, config, state_of(D.tensors, DISCRIMINATOR)).to(device),
        config, config.full, kimg=kimg_in(path), data=path.stem,
    )  # fmt: skip


# Records


class Parts:
    """The parts of a network by their paths, such as "synthesis.b8.conv0": their attributes, and all tensors."""

    def __init__(self, record: Record):
        self.attributes: dict[str, Settings] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self._collect(record, "", 0)
        # Before they are copied, because a file may name the same numbers again and again.
        fault = excess("the network", sum(value.size for value in self.tensors.values()), "million_weights")
        if fault:
            raise UserError(fault)

    def _collect(self, record: Record, path: str, depth: int) -> None:
        if depth > MAX_DEPTH or len(self.attributes) >= MAX_PARTS or not isinstance(record.state, dict):
            raise UserError("its parts are not those of a network")
        self.attributes[path] = record.state
        prefix = f"{path}." if path else ""
        for kind in ("_parameters", "_buffers"):
            for name, value in _named(record.state.get(kind)):
                if not isinstance(value, Array) or value.data is None:
                    raise UserError(f"its {prefix}{name} is no tensor")
                self.tensors[prefix + name] = value.data
        for name, part in _named(record.state.get("_modules")):
            if not isinstance(part, Record):
                raise UserError(f"its {prefix}{name} is no part of a network")
            self._collect(part, prefix + name, depth + 1)

    def has(self, path: str) -> bool:
        return path in self.attributes

    def resamples(self, name: str) -> bool:
        """Whether the part with a tensor changes the resolution; others have a filter that they do not use."""
        attributes = self.of(name.rpartition(".")[0])
        return not (_equal(attributes.get("up"), 1) and _equal(attributes.get("down", 1), 1))

    def get(self, path: str, name: str, default: Any) -> Any:
        """An attribute of a part, of the type of `default`. Raises UserError if there is no such part."""
        return setting(self.of(path), name, default)

    def of(self, path: str) -> Settings:
        """The attributes of a part. Raises UserError if there is no such part."""
        if path not in self.attributes:
            raise UserError(f"its part {path} is missing; the network is not as published")
        return self.attributes[path]

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """The shape of a tensor. Raises UserError if there is no such tensor, or one with other dimensions."""
        if name not in self.tensors or self.tensors[name].ndim != ndim:
            raise UserError(f"its {name} is missing or of another shape; the network is not as published")
        return self.tensors[name].shape


def _named(entries: Any) -> list[tuple[str, Any]]:
    """The entries of a dict of parts or tensors that are there, in its order."""
    found = entries.items() if isinstance(entries, dict) else ()
    if not all(isinstance(name, str) and re.fullmatch(r"\w{1,80}", name) for name, _ in found):
        raise UserError("its parts have no names")
    return [(name, value) for name, value in found if value is not None]


# Attributes and shapes as a config


def config_of(G: Parts, D: Parts | None) -> StyleGAN2Config:
    """The config of both networks. Raises UserError for one that ours cannot be, or if they do not belong together."""
    if G.has("synthesis.input"):
        raise UserError(f"it is a network of StyleGAN3 (PyTorch); {ADVICE}")
    if not G.has("synthesis.b4") or not G.has("mapping"):
        raise UserError(f"it is a network of a project that descends from StyleGAN2-ADA (PyTorch); {ADVICE}")
    full = G.get("", "img_resolution", 0)
    resolutions = [4 << k for k in range(full.bit_length() - 2)]
    last, layers = f"synthesis.b{full}", G.get("mapping", "num_layers", 0)
    w_dim, num_classes = G.get("", "w_dim", 0), G.get("", "c_dim", 0)
    widths = [(res, G.shape(f"synthesis.b{res}.conv1.weight", 4)[0]) for res in resolutions]
    settings: Settings = {
        "resolution": full, "channels": G.get("", "img_channels", 0), "num_classes": num_classes,
        "base": G.shape("synthesis.b4.const", 3)[1:],
        "z_dim": G.get("", "z_dim", 0), "w_dim": w_dim, "mapping_layers": layers,
        "mapping_dim": G.shape("mapping.fc0.weight", 2)[0] if layers > 1 else w_dim,
        "mapping_lr_mul": _number(G, "mapping.fc0", "bias_gain") if layers else 1.0,
        "mapping_activation": _one_of(G, "mapping.fc0", "activation", ("lrelu", "relu")) if layers else "lrelu",
        "activation": _one_of(G, f"{last}.conv1", "activation", ("lrelu", "relu")),
        "architecture": _one_of(G, last, "architecture", ARCHITECTURES),
        "resample_filter": _taps(G, D), "conv_clamp": _number(G, f"{last}.conv1", "conv_clamp"),
        "noise": G.get(f"{last}.conv1", "use_noise", True),
    }  # fmt: skip
    _require_alike(G, r"synthesis\.b\d+(\.conv\d|\.torgb)?", settings, ("architecture", "conv_clamp"))
    _require_alike(
        G, r"synthesis\.b\d+\.conv\d", settings | {"use_noise": settings["noise"]}, ("activation", "use_noise")
    )
    _require_alike(G, r"mapping\.fc\d+", {"activation": settings["mapping_activation"]}, ("activation",))
    if D is not None:
        settings |= _of_discriminator(D, settings)
        widths += [(res, D.shape(f"b{res}.conv0.weight", 4)[0]) for res in resolutions if res > 4]
        widths.append((4, D.shape("b4.conv.weight", 4)[0]))
    config = StyleGAN2Config(**settings | fmaps(widths))
    return replace(config, cmap_dim=None) if config.cmap_dim == config.nf(4) else config


def _of_discriminator(D: Parts, settings: Settings) -> Settings:
    """Settings of the discriminator. Raises UserError where it does not belong to a generator of `settings`."""
    full = settings["resolution"]
    own = {"resolution": D.get("", "img_resolution", 0), "channels": D.get("", "img_channels", 0),
           "num_classes": D.get("", "c_dim", 0), "conv_clamp": _number(D, f"b{full}.conv0", "conv_clamp"),
           "activation": _one_of(D, f"b{full}.conv0", "activation", ("lrelu", "relu"))}  # fmt: skip
    differ = [name for name, value in own.items() if value != settings[name]]
    if differ:
        raise UserError(f"generator and discriminator differ in {', '.join(differ)}, which published ones do not")
    found: Settings = {"d_architecture": _one_of(D, f"b{full}", "architecture", ARCHITECTURES), "mbstd_group": 0}
    own["architecture"] = found["d_architecture"]
    _require_alike(D, r"b\d+(\.conv\d?|\.fromrgb)?", own, ("architecture", "conv_clamp"))
    _require_alike(D, r"b\d+\.(conv\d?|fromrgb|fc)", own, ("activation",))
    _require_alike(D, r"mapping\.fc\d+", {"activation": settings["mapping_activation"]}, ("activation",))
    if D.has("b4.mbstd"):
        group = D.attributes["b4.mbstd"].get("group_size")
        found["mbstd_group"] = WIDEST if group is None else D.get("b4.mbstd", "group_size", 0)
        found["mbstd_features"] = D.get("b4.mbstd", "num_channels", 1)
    if own["num_classes"]:
        found |= {"cmap_dim": D.get("b4", "cmap_dim", 0), "cmap_layers": D.get("mapping", "num_layers", 0)}
        if not found["cmap_dim"]:
            raise UserError("its discriminator ignores the classes, which ours cannot")
        if found["cmap_layers"] and _number(D, "mapping.fc0", "bias_gain") != settings["mapping_lr_mul"]:
            raise UserError("its mapping networks differ in their learning rates, which ours cannot")
    return found


def _require_alike(parts: Parts, paths: str, wanted: Settings, names: Sequence[str]) -> None:
    """Raises UserError unless all parts of these paths have the attributes of `wanted`, as far as they have them.

    Ours are the same in all parts, and a network with others would silently generate something else.
    """
    for path, attributes in parts.attributes.items():
        for name in names if re.fullmatch(paths, path) else ():
            if name in attributes and not _equal(attributes[name], wanted[name]):
                value = shown_briefly(attributes[name])
                raise UserError(f"its {path} has {name} {value}, and others {shown_briefly(wanted[name])}")


def _equal(value: Any, wanted: Any) -> bool:
    return isinstance(value, (str, int, float, np.generic, type(None))) and bool(value == wanted)


ARCHITECTURES = ("skip", "resnet", "orig")


def fmaps(widths: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The fmap_base and fmap_max with which networks have so many feature maps at these resolutions.

    Raises UserError if there are none.
    """
    most = max(maps for _, maps in widths)
    base = max((maps * res for res, maps in widths if maps > 1), default=1)  # 1 is the least, however small the base
    if any(max(1, min(base // res, most)) != maps for res, maps in widths):
        found = ", ".join(f"{maps} at {res}" for res, maps in sorted(set(widths)))
        raise UserError(f"its numbers of feature maps ({found[:200]}) are not those of any published network")
    return {"fmap_base": base, "fmap_max": most}


def _number(parts: Parts, path: str, name: str) -> float | None:
    """An attribute that is a number or None."""
    value = parts.of(path).get(name)
    value = value.item() if isinstance(value, np.generic) else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < WIDEST:
        raise UserError(f"its {path} has {name} {shown_briefly(value)}, which published networks cannot have")
    return float(value)


def _one_of(parts: Parts, path: str, name: str, known: Sequence[str]) -> str:
    value: str = parts.get(path, name, "")
    if value not in known:
        raise UserError(f"its {path} has {name} {shown_briefly(value)}; known are {', '.join(known)}")
    return value


def _taps(*networks: Parts | None) -> tuple[float, ...]:
    """The taps of the filter that all parts share, whole numbers if they are the usual ones.

    Raises UserError if there are several filters, or one that is not the product of a row with itself.
    """
    filters = [
        value
        for net in networks if net
        for name, value in net.tensors.items() if name.endswith("resample_filter") and net.resamples(name)
    ]  # fmt: skip
    if not filters or any(f.shape != filters[0].shape or not np.array_equal(f, filters[0]) for f in filters):
        raise UserError("its parts have several resampling filters, which published networks do not")
    whole = filters[0].astype(np.float64)
    row = whole if whole.ndim == 1 else whole.sum(axis=0)
    if whole.ndim not in (1, 2) or len(row) > 64 or (whole.ndim == 2 and not np.allclose(whole, np.outer(row, row))):
        raise UserError("its resampling filter is not separable, which those of published networks are")
    usual = StyleGAN2Config.resample_filter
    same = len(row) == len(usual) and np.allclose(row, np.array(usual) / sum(usual))
    return usual if same else tuple(float(tap) for tap in row)


# Tensors, as state dicts of our networks


Names = Mapping[str, str]
"""Regular expressions for published names, with what they are in ours; the first that matches counts."""

_LAYER = r"\.(weight|bias|noise_strength)"
GENERATOR: Names = {
    r"mapping\.(w_avg|embed\.weight|embed\.bias)": r"mapping.\1",
    r"mapping\.fc(\d+)\.(weight|bias)": r"mapping.layers.\1.\2",
    r"synthesis\.b4\.const": "synthesis.const",
    rf"synthesis\.b4\.conv1{_LAYER}": r"synthesis.convs.4.0.\1",
    r"synthesis\.b4\.conv1\.noise_const": "synthesis.convs.4.0.noise",
    r"synthesis\.b4\.conv1\.affine\.(weight|bias)": r"synthesis.convs.4.0.style.\1",
    rf"synthesis\.b(\d+)\.conv([01]){_LAYER}": r"synthesis.convs.\1.\2.\3",
    r"synthesis\.b(\d+)\.conv([01])\.noise_const": r"synthesis.convs.\1.\2.noise",
    r"synthesis\.b(\d+)\.conv([01])\.affine\.(weight|bias)": r"synthesis.convs.\1.\2.style.\3",
    r"synthesis\.b(\d+)\.torgb\.(weight|bias)": r"synthesis.to_rgb.\1.\2",
    r"synthesis\.b(\d+)\.torgb\.affine\.(weight|bias)": r"synthesis.to_rgb.\1.style.\2",
    r"synthesis\.b(\d+)\.skip\.weight": r"synthesis.shortcuts.\1.weight",
}
DISCRIMINATOR: Names = {
    r"mapping\.embed\.(weight|bias)": r"class_mapping.embed.\1",
    r"mapping\.fc(\d+)\.(weight|bias)": r"class_mapping.layers.\1.\2",
    r"b4\.conv\.(weight|bias)": r"head.conv.\1",
    r"b4\.fc\.(weight|bias)": r"head.dense0.\1",
    r"b4\.out\.(weight|bias)": r"head.dense1.\1",
    r"b(\d+)\.fromrgb\.(weight|bias)": r"from_rgb.\1.\2",
    r"b(\d+)\.(conv[01])\.(weight|bias)": r"blocks.\1.\2.\3",
    r"b(\d+)\.skip\.weight": r"blocks.\1.shortcut.weight",
}


def state_of(tensors: Mapping[str, np.ndarray], names: Names) -> State:
    """The state of our network. Raises UserError for a tensor that ours does not have."""
    state: State = {}
    for name, value in tensors.items():
        if name.endswith("resample_filter"):
            continue  # a setting of ours
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, name)), None)
        if pattern is None:
            raise UserError(f"its {name[:80]} is unknown; the network is not as published")
        tensor = torch.from_numpy(np.array(value, dtype=np.float32))
        if name.endswith("noise_const"):
            tensor = tensor[None, None]
        state[re.sub(pattern, names[pattern], name)] = tensor[None] if name.endswith(".const") else tensor
    if "mapping.w_avg" in state and (embed := state.get("mapping.embed.weight")) is not None and embed.ndim == 2:
        state["mapping.w_avg"] = state["mapping.w_avg"].expand(min(embed.shape[1], WIDEST), -1)  # of all classes
    return state
