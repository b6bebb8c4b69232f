"""`stylegan.load` finds a model wherever it is, and says where it looked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import stylegan
from stylegan.checkpoints.locate import latest
from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.networks.config import Stage
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from torch_utils.files import cache_folder

ROOT = Path(__file__).parents[3]
TINY = StyleGAN1Config(resolution=8, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=8)


def save(path: Path, kimg: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    store(path, Snapshot(build_generator(TINY), build_discriminator(TINY), TINY, Stage(8), kimg, "faces"))
    return path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()


@pytest.fixture
def server(tmp_path) -> Iterator[ThreadingHTTPServer]:
    (tmp_path / "web").mkdir()
    Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "web"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_and_the_folder_of_a_run(kind, tmp_path):
    for kimg in (900, 1000, 20):
        save(tmp_path / f"run/network-snapshot-{kimg:06d}.safetensors", kimg)
    (tmp_path / "run/.network-snapshot-002000.safetensors.17.tmp").write_bytes(b"half")
    assert stylegan.load(kind(tmp_path / "run/network-snapshot-000900.safetensors")).kimg == 900
    snap = stylegan.load(kind(tmp_path / "run"))
    assert (snap.kimg, snap.data, snap.config) == (1000, "faces", TINY)
    assert snap.D is not None


def test_a_million_kimg_are_newer_than_less(tmp_path):
    for name in ("999999", "1000000"):
        save(tmp_path / f"network-snapshot-{name}.safetensors")
    assert latest(tmp_path).name == "network-snapshot-1000000.safetensors"


def test_a_published_network_comes_with_its_discriminator():
    snap = stylegan.load(ROOT / "tests/data/stylegan_r32.pkl")
    assert snap.config.family == "stylegan"
    assert snap.D is not None


def test_a_name_is_looked_up_in_the_cache(tmp_path):
    save(cache_folder("models") / "smallfaces.safetensors", kimg=7)
    assert stylegan.load("smallfaces").kimg == 7
    with pytest.raises(UserError, match="no model bigfaces.*cache.*known names:.*smallfaces"):
        stylegan.load("bigfaces")


@pytest.mark.parametrize("where", ["missing.safetensors", "runs/missing", "missing.pkl", "/nowhere/at/all"])
def test_what_is_not_there_is_named(where):
    with pytest.raises(UserError, match=f"no file or folder {where}"):
        stylegan.load(where)


def test_a_folder_without_snapshots(tmp_path):
    with pytest.raises(UserError, match=f"no snapshot .* in {tmp_path}"):
        stylegan.load(tmp_path)


def test_an_address_is_fetched_once(server, tmp_path):
    save(tmp_path / "web/my model.safetensors", kimg=3)
    url = f"http://127.0.0.1:{server.server_port}/my%20model.safetensors?download=true"
    assert stylegan.load(url).kimg == 3
    assert stylegan.load(url).kimg == 3
    assert len(Handler.asked) == 1


def test_two_addresses_with_one_name_are_two_models(server, tmp_path):
    for kimg in (1, 2):
        save(tmp_path / f"web/{kimg}/model.safetensors", kimg=kimg)
        assert stylegan.load(f"http://127.0.0.1:{server.server_port}/{kimg}/model.safetensors").kimg == kimg


def test_what_is_no_model_is_not_kept(server, tmp_path):
    (tmp_path / "web/model.safetensors").write_bytes(b"<html>log in first</html>")
    url = f"http://127.0.0.1:{server.server_port}/model.safetensors"
    with pytest.raises(UserError, match=f"{url}.*web page"):
        stylegan.load(url)
    save(tmp_path / "web/model.safetensors", kimg=4)
    assert stylegan.load(url).kimg == 4


def test_an_address_that_has_nothing(server):
    with pytest.raises(UserError, match="404"):
        stylegan.load(f"http://127.0.0.1:{server.server_port}/model.safetensors")


def test_importing_is_quick_and_loading_needs_no_torchvision(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    path = save(tmp_path / "x.safetensors")
    code = f"""
import sys, stylegan
assert not {{"torch", "numpy", "PIL"}} & sys.modules.keys()
print(stylegan.load({str(path)!r}).generate([0])[0].size)
"""
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "(8, 8)\n", done.stderr


def test_the_public_names_of_the_readme_work(tmp_path):
    model = stylegan.load(save(tmp_path / "x.safetensors"))
    G, D = model.G, model.D
    w = G.mapping(torch.randn(2, 8))
    ws = G.broadcast(w)
    assert (w.shape, ws.shape) == ((2, 8), (2, model.config.num_ws, 8))
    images = G.synthesis(ws, Stage(8, 0.5), noise="none")
    assert D(images, c=None, stage=Stage(8, 0.5)).shape == (2,)
    assert len(model.generate([1, 2, 3], psi=0.7)) == 3
