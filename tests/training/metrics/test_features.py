"""Feature networks of one's own are asked as is promised, and what is no feature network is one clear line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stylegan.features import inception, lpips, weights
from stylegan.features.weights import cached
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError
from training.metrics.features import pick_features

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
CPU = torch.device("cpu")
GREY = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def offline(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
    raise UserError("could not download it")


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.double().mean(dim=(2, 3))


class Published(nn.Module):
    """With the argument that the published repositories' networks take."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        x = images.float().mean(dim=(2, 3))
        if return_features:
            return x
        return x.softmax(dim=1)[:, :2]


def scripted(module: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.mark.parametrize("module", [Means(), Published()])
def test_a_torchscript_file(module, tmp_path):
    path = scripted(module, tmp_path / "my net.pt")
    net = pick_features(str(path), CPU)
    assert (net.name, net.dims) == ("my-net", 3)
    assert net.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    found = net.embed(GREY)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, GREY.float().mean(dim=(2, 3)).expand(3, 3))


def test_a_function(corners):
    net = pick_features(corners, CPU)
    assert (net.name, net.dims, net.probabilities) == ("corners-embed", 12, None)
    assert net.embed(GREY).shape == (3, 12)


@pytest.mark.parametrize(("name", "message"), [
    ("nowhere.pt", "No such file.*give one of efficientnet-lite0"),
    ("nowhere:embed", "No module named 'nowhere'.*module:function"),
    ("corners:nothing", "has no attribute 'nothing'"),
    ("text.pt", "no TorchScript module"),
    ("flat:embed", r"made \[6\] of two images; it should make \[2,dims\]"),
    ("flat:fails", r"failed on images, uint8 \[2,3,64,64\]: not today"),
])  # fmt: skip
def test_what_is_no_feature_network(name, message, corners, tmp_path, monkeypatch):
    (tmp_path / "text.pt").write_text("text")
    (tmp_path / "flat.py").write_text(
        "def embed(images):\n    return images.float().mean(dim=(2, 3)).flatten()\n"
        "def fails(images):\n    raise ValueError('not today')\n"
    )
    monkeypatch.delitem(__import__("sys").modules, "flat", raising=False)
    with pytest.raises(UserError, match=message) as caught:
        pick_features(str(tmp_path / name) if name.endswith(".pt") else name, CPU)
    assert "\n" not in str(caught.value)


def test_what_lpips_looks_at_depth_by_depth():
    torch.manual_seed(0)
    save_weights("lpips-alex", {name: torch.rand(shape) / 30 for name, shape in lpips.shapes("lpips-alex").items()})
    net = pick_features("lpips-alex", CPU)
    found = net.embed(GREY)
    assert (net.name, net.dims) == ("lpips-alex", 64 + 192 + 384 + 256 + 256) and found.shape == (3, net.dims)
    assert torch.equal(found, net.embed(GREY.expand(-1, 3, -1, -1))) and len(found.unique(dim=0)) == 3


def save_weights(name: str, weights: dict[str, Tensor]) -> None:
    cached(name).parent.mkdir(parents=True)
    save_tensors(cached(name), weights, {})


def test_weights_are_for_named_networks_only(corners, tmp_path):
    with pytest.raises(UserError, match="--features-weights are for efficientnet-lite0, .*; corners:embed brings"):
        pick_features(corners, CPU, tmp_path / "weights.pt")


def test_inception_is_taken_where_it_is_and_nothing_else_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "download", offline)
    with pytest.raises(
        UserError, match=r"inception.* is not here: could not download it; fetch .*elsewhere and put it at"
    ):
        pick_features(inception.NAME, CPU)
    path = scripted(Published(), tmp_path / "other.pt")
    with pytest.raises(UserError, match="is not inception-2015-12-05 .its sha256 begins with"):
        pick_features(inception.NAME, CPU, path)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    net = pick_features(inception.NAME, CPU, path)
    assert net.name == "inception" and net.embed(GREY).shape == (3, 3)
    monkeypatch.setattr(inception, "STATE_SHA256", inception.SHA256)
    monkeypatch.setattr(inception, "SHA256", "")
    monkeypatch.setattr(inception.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="weights without a network: pip install torch-fidelity"):
        pick_features(inception.NAME, CPU, path)
