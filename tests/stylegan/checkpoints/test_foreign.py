"""Files are what their first bytes say, whatever their names; networks of other projects are refused by their name."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan.checkpoints.foreign import pickle_content
from stylegan.checkpoints.locate import open_snapshot
from stylegan.latents.latents import Latents, save_latents
from stylegan.latents.notation import is_photograph, parse_points
from tests.stylegan.tiny import snapshot
from torch_utils.errors import UserError
from torch_utils.untrusted import recognised

DATA = Path(__file__).parents[2] / "data"
STATE = {"g_ema": {"conv1.conv.modulation.weight": torch.zeros(1), "to_rgb1.bias": torch.zeros(1)}}


@pytest.mark.parametrize("name", ["net.PKL", "net", "net.safetensors", "net.pt"])
def test_a_published_network_may_have_any_name(tmp_path, name):
    shutil.copy(DATA / "stylegan_r32.pkl", tmp_path / name)
    (tmp_path / "link").symlink_to(name)
    assert open_snapshot(tmp_path / name).fingerprint == open_snapshot(tmp_path / "link").fingerprint


@pytest.mark.parametrize("name", ["net.PKL", "net", "net.SAFETENSORS"])
def test_a_snapshot_may_have_any_name(models, tmp_path, name):
    shutil.copy(models / "faces.safetensors", tmp_path / name)
    assert open_snapshot(tmp_path / name).data == "pictures"


def old_torch(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def script(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/code/__torch__.py", "")
        archive.writestr("a/data.pkl", "")


def archive_of_images(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("00000/img00000000.png", "")


def arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(3))


def damaged_zip(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("suffix", [".pt", ".pkl", ".safetensors", ""])
@pytest.mark.parametrize("write, says", [
    (lambda path: torch.save(STATE, path), "a network of StyleGAN2 .PyTorch, rosinality"), (old_torch, "StyleGAN2 .Py"),
    (lambda path: torch.save({"x": torch.zeros(1)}, path), "a PyTorch file; this project opens its own snapshots, and"),
    (lambda path: torch.save({"tick_nimg": 1, "G_ema": 1}, path), "the training state of a run, whose directory"),
    (script, "a TorchScript program"), (archive_of_images, "an archive of images"), (arrays, "an archive of NumPy"),
    (damaged_zip, "a damaged zip or PyTorch file"),
    (lambda path: path.write_bytes(pickle.dumps({"x": torch.zeros(1)})), "a pickle of PyTorch tensors"),
    (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file, as Keras writes networks"),
    (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS.*git lfs pull"),
    (lambda path: path.write_bytes(b""), "is empty; copy or download it again"),
    (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "compressed with gzip; unpack it first"),
    (lambda path: Image.new("RGB", (4, 4)).save(path, "PNG"), "is an image, and not"),
])  # fmt: skip
def test_what_is_no_network_is_named(tmp_path, write, says, suffix):
    path = tmp_path / f"net{suffix}"
    write(path)
    with pytest.raises(UserError, match=f"^{path}.*{says}"):
        open_snapshot(path)


@pytest.mark.parametrize("names, says", [
    (b"torch_utils.persistence _reconstruct_persistent_obj SynthesisNetwork SynthesisInput", "StyleGAN3"),
    (b"torch_utils.persistence _reconstruct_persistent_obj SynthesisNetwork ctorch _rebuild_tensor", ""),
    (b"dnnlib.tflib.network Network inception_v3_features", "a feature network"), (b"collections OrderedDict", ""),
])  # fmt: skip
def test_networks_of_other_projects_are_recognised_by_the_names_in_them(names, says):
    assert says in pickle_content(names) and bool(says) == bool(pickle_content(names))


def test_a_run_of_another_project_names_a_file_to_give(tmp_path):
    for kimg in (5, 10):
        (tmp_path / f"network-snapshot-{kimg:06d}.pkl").touch()
    with pytest.raises(UserError, match=r"there is no snapshot.*give one of its files, such as .*000010\.pkl"):
        open_snapshot(tmp_path)


def test_latents_and_photographs_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = snapshot()
    ws = torch.zeros(1, found.config.num_ws, found.config.ws_dim)
    save_latents(tmp_path / "eva.latent.safetensors", Latents(ws, ("eva",), ("photo",)), found)
    Image.new("RGB", (4, 4)).save("photo", "PNG")
    for name in ("eva", "7"):
        Path(name).symlink_to("eva.latent.safetensors")
    assert parse_points("eva,photo,7") == (Path("eva"), Path("photo"), 7)
    assert not is_photograph(Path("eva")) and is_photograph(Path("photo"))
    Path("notes").write_text("neither")
    with pytest.raises(UserError, match="Invalid seed 'notes'"):
        parse_points("notes")


def test_the_beginning_of_a_file_is_enough():
    assert recognised(b"\x10\0\0\0\0\0\0\0{") == ("a safetensors file", "")
    assert recognised(b"\x89PNG\r\n") == ("an image", "") and recognised(b"seed,smile") == ("", "")
