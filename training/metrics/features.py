"""Feature networks: what images are compared in. Every metric says which one it used."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan.features import efficientnet as effnet
from stylegan.features import inception, lpips
from stylegan.features.weights import content_sha256
from torch_utils.download import digest_of
from torch_utils.errors import UserError
from torch_utils.images import to_float

Embedding = Callable[[Tensor], Tensor]
"""Images, uint8 [N,C,H,W] on any device, C being 1, 3 or 4 -> float32 [N,dims]. Each row depends on its image only."""

DEFAULT = effnet.NAME
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NAMES = (effnet.NAME, inception.NAME, *lpips.NETS)
WITH_CLASSES = (effnet.NAME, inception.NAME)


def _lpips_dims(name: str) -> int:
    return sum(conv.outputs for conv in lpips.NETS[name] if conv.tap)


DIMS = {effnet.NAME: effnet.DIMS, inception.NAME: inception.DIMS} | {name: _lpips_dims(name) for name in lpips.NETS}
"""How many features the networks in `NAMES` have."""


def runs_code(name: str) -> bool:
    """Whether these features are a program of the user's own, a TorchScript file or `module:function`."""
    return name not in NAMES


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that says what an image shows. It resizes images itself, real ones and fakes alike.

    name: as the names of metrics carry it   sha256: of its weights   dims: how many features it has
    probabilities: of its classes, [N,classes], where it has some (for the inception score)
    """

    name: str
    sha256: str
    dims: int
    embed: Embedding
    probabilities: Embedding | None = None


def short_name(name: str) -> str:
    """How the names of metrics say which network they are of: "efficientnet-lite0" is effnetlite0.

    A file of the user's that is called like one of these is no such network: inception.pt is inception-own.
    """
    known = {effnet.NAME: "effnetlite0", inception.NAME: "inception"} | {net: net for net in lpips.NETS}
    if name in known:
        return known[name]
    short = name.replace(":", "-") if _FUNCTION.fullmatch(name) else Path(name).stem
    short = re.sub(r"[^\w.]+", "-", short)
    return f"{short}-own" if short in known.values() else short


def pick_features(name: str, device: torch.device, weights: Path | None = None) -> FeatureNetwork:
    """The network of a name in `NAMES`, of a TorchScript file, or of a function `module:function`.

    Those that are yours get uint8 [N,3,H,W], and resize it themselves. weights: a file for those in `NAMES`.
    Raises UserError, saying how to get it, for one that is not to be had.
    """
    if weights is not None and name not in NAMES:
        raise UserError(f"--features-weights are for {', '.join(NAMES)}; {name} brings its own")
    if name == effnet.NAME:
        net = _moved(effnet.merged(effnet.find_weights(weights)), device)
        return FeatureNetwork(
            short_name(name), effnet.MEMBER.sha256, effnet.DIMS,
            _quiet(partial(effnet.features, net), device), _quiet(partial(effnet.probabilities, net), device),
        )  # fmt: skip
    if name == inception.NAME:
        path, sha256 = inception.find_file(weights)
        embed, classes = (_quiet(_in_colour(of), device) for of in inception.load(path, sha256, device))
        return FeatureNetwork(short_name(name), sha256, inception.DIMS, embed, classes)
    if name in lpips.NETS:
        return _lpips(name, device, weights)
    if _FUNCTION.fullmatch(name):
        return _of_function(name, device)
    return _of_file(Path(name), device)


def _lpips(name: str, device: torch.device, weights: Path | None) -> FeatureNetwork:
    """What LPIPS compares, averaged over the places of each depth, all depths side by side."""
    found = lpips.find_weights(name, [] if weights is None else [weights])
    net = _moved(found, device)

    def embed(images: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=(2, 3)) for x in lpips.embed(name, net, to_float(images))], dim=1)

    return FeatureNetwork(name, content_sha256(found), DIMS[name], _quiet(embed, device))


def _of_file(path: Path, device: torch.device) -> FeatureNetwork:
    """A TorchScript module. Raises UserError if it is none."""
    try:
        sha256 = digest_of(path, "sha256")
        net = torch.jit.load(path, map_location=device).eval()
    except OSError as error:
        raise UserError(
            f"--features {path}: {error.strerror or error}; give one of {', '.join(NAMES)}, a TorchScript file, or "
            "module:function"
        ) from error
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is no TorchScript module (torch.jit.save makes one)") from error
    published = "return_features" in {argument.name for argument in net.forward.schema.arguments}

    def embed(images: Tensor) -> Tensor:
        found: Tensor = net(images, return_features=True) if published else net(images)
        return found

    return _probed(str(path), sha256, embed, device)


def _of_function(name: str, device: torch.device) -> FeatureNetwork:
    """A function of the user's. Raises UserError if there is none of that name."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        embed: Embedding = getattr(module, function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--features {name}: {error}; it should be module:function, importable from here") from error
    source = getattr(module, "__file__", None)
    content = Path(source).read_bytes() if source else name.encode()
    return _probed(name, hashlib.sha256(content).hexdigest(), embed, device)


def _probed(name: str, sha256: str, embed: Embedding, device: torch.device) -> FeatureNetwork:
    """With its number of features, found by asking it. Raises UserError if that is no [N,dims]."""
    quiet = _quiet(_in_colour(embed), device)
    try:
        found: Any = quiet(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise UserError(f"--features {name} failed on images, uint8 [2,3,64,64]: {reason}") from error
    if found.ndim != 2 or len(found) != 2:
        raise UserError(f"--features {name} made {list(found.shape)} of two images; it should make [2,dims]")
    return FeatureNetwork(short_name(name), sha256, found.shape[1], quiet)


def _quiet(embed: Embedding, device: torch.device) -> Embedding:
    """Without gradients, on `device`, in float32."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(embed(images.to(device))).float()

    return run


def _in_colour(embed: Embedding) -> Embedding:
    """For networks that take RGB only: grey is repeated, alpha left out."""
    return lambda images: embed(
        images.expand(-1, 3, -1, -1).contiguous() if images.shape[1] == 1 else images[:, :3].contiguous()
    )


def _moved(net: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {
        name: value.to(device, memory_format=torch.channels_last) if value.ndim == 4 else value.to(device)
        for name, value in net.items()
    }
