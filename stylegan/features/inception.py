"""The Inception network of 2015-12-05, with which FID is defined (Heusel et al. 2017). Its weights are not on PyPI.

The TorchScript of the published repositories is used as they do: images go in as bytes and are resized inside. The
weights of pytorch-fid and torch-fidelity, which are the same, need torch-fidelity's network.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stylegan.features.weights import downloaded
from torch_utils.download import digest_of
from torch_utils.errors import UserError, in_words
from torch_utils.files import cache_folder

Answer = Callable[[Tensor], Tensor]

NAME = "inception-2015-12-05"
DIMS = 2048
FILE = f"{NAME}.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
STATE_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of the weights alone


def find_file(given: Path | None = None) -> tuple[Path, str]:
    """The TorchScript, or a file of weights, and its sha256: the file given, or the cached one, or a download (96 MB).

    Raises UserError with how to get it where it cannot be found, and for any other file.
    """
    path = given or cache_folder("features") / FILE
    if given is None and not path.is_file():
        advice = (
            f"fetch {URL} elsewhere and put it at {path}, or give it with --features {NAME} --features-weights FILE"
        )
        path = downloaded(f"{NAME}, the network that defines FID,", URL, SHA256, advice)
    try:
        found = digest_of(path, "sha256")
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    if found not in (SHA256, STATE_SHA256):
        raise UserError(
            f"{path} is not {NAME} (its sha256 begins with {found[:12]}, not {SHA256[:12]} or {STATE_SHA256[:12]}); "
            f"get {URL}, or use your own network with --features {path}"
        )
    return path, found


def load(path: Path, sha256: str, device: torch.device) -> tuple[Answer, Answer]:
    """What it makes of images uint8 [N,3,H,W]: their features [N,2048], and the probabilities of its classes [N,1008].

    These are without the last layer's bias, as the published score has it. Raises UserError where torch-fidelity would
    be needed.
    """
    if sha256 == SHA256:
        published = torch.jit.load(path, map_location=device).eval()
        return partial(published, return_features=True), partial(published, no_output_bias=True)
    if importlib.util.find_spec("torch_fidelity") is None or importlib.util.find_spec("torchvision") is None:
        raise UserError(
            f"{path} holds weights without a network: pip install torch-fidelity, with the torchvision that fits your "
            f"PyTorch, or get {URL} instead"
        )
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    names = ["2048", "logits_unbiased"]
    net = FeatureExtractorInceptionV3(NAME, names, feature_extractor_weights_path=str(path)).to(device).eval()
    return lambda images: net(images)[0], lambda images: net(images)[1].float().softmax(dim=1)
