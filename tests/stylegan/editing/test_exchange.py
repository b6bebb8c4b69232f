"""Latents and directions of other tools come in as what they are, go out again, and no file of them runs code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from stylegan.checkpoints.snapshot import load_snapshot
from stylegan.cli.convert import main
from stylegan.editing.directions import load_directions, save_directions
from stylegan.editing.exchange import directions_in, exchange, latents_in, read_array
from stylegan.latents.latents import Latents, load_latents, save_latents
from tests.stylegan.tiny import trained
from torch_utils.errors import UserError

NET = trained()  # 6 layers, w_dim 8
RANDOM = np.random.default_rng(0)
WS = RANDOM.standard_normal((3, 6, 8)).astype(np.float32)


def written(path: Path, array: np.ndarray, **others: np.ndarray) -> Path:
    """An array in a file of the kind that its suffix says, as other tools write it."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, w=array, **others)
    else:
        torch.save(torch.from_numpy(array), path)
    return path


@pytest.mark.parametrize("name", ["eva.npy", "projected_w.npz", "latents.pt"])
@pytest.mark.parametrize("array, count, said", [
    (WS, 3, "[3, 6, 8] of float32, read as 3 latents in W+, a w for each of 6 layers"),
    (WS[:1], 1, "[1, 6, 8] of float32, read as 1 latent in W+"),
    (WS[0], 1, "[6, 8] of float32, read as 1 latent in W+"),
    (WS[:, 0], 3, "[3, 8] of float32, read as 3 latents in W, one w for all layers"),
    (WS[0, 0], 1, "[8] of float32, read as 1 latent in W"), (WS[:, :1], 3, "read as 3 latents in W"),
    (np.repeat(WS[:1, :1], 6, axis=1), 1, "read as 1 latent in W,"), (WS.astype(float), 3, "of float64, read as 3"),
])  # fmt: skip
def test_latents_come_in_with_their_shape(name, array, count, said, tmp_path):
    latents, line = latents_in(written(tmp_path / name, array), NET)
    expected = array.reshape(count, -1, 8) if array.shape != (6, 8) else array[None]
    assert torch.equal(latents.ws, torch.from_numpy(expected.astype(np.float32)).expand(-1, 6, -1))
    assert said in line and len(latents.names) == len(set(latents.names)) == count
    assert name in latents.origins[0]


def test_what_other_tools_write_around_their_arrays(tmp_path):
    single = tmp_path / "eva.pt"
    torch.save({"eva.png": {"img": torch.zeros(1, 3, 4, 4), "latent": torch.from_numpy(WS[0]),
                            "noise": [torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8)]}}, single)  # fmt: skip
    assert torch.equal(latents_in(single, NET)[0].ws[0], torch.from_numpy(WS[0]))
    misnamed = written(tmp_path / "b.npz", WS).rename(tmp_path / "b.dat")
    assert torch.equal(latents_in(misnamed, NET)[0].ws, torch.from_numpy(WS))
    half = tmp_path / "half.pt"
    torch.save([torch.from_numpy(WS).bfloat16()], half)
    assert "of bfloat16" in latents_in(half, NET)[1]


@pytest.mark.parametrize("array, message", [
    (np.zeros((1, 18, 8)), r"\[1, 18, 8\] of float64 does not fit: ws must be"), (np.zeros((3, 16)), "does not fit"),
    (np.full((1, 8), np.nan), "not finite"), (np.zeros((1, 8), int), "must be floating-point"),
    (np.zeros((0, 8)), "is empty"), (np.array(["a"]), "floating-point"), (np.array(1.0), "does not fit"),
])  # fmt: skip
def test_arrays_that_are_no_latents(array, message, tmp_path):
    with pytest.raises(UserError, match=message):
        latents_in(written(tmp_path / "a.npy", array), NET)


def test_several_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=WS, y=WS)
    with pytest.raises(UserError, match="holds x, y; expected one array, or one called w, ws"):
        latents_in(tmp_path / "a.npz", NET)


class Evil:
    def __reduce__(self):
        return (open, ("marker", "w"))


def evil_files(folder: Path) -> list[Path]:
    objects = folder / "objects.npy"
    np.save(objects, np.array([Evil()], object), allow_pickle=True)
    inside = folder / "objects.npz"
    np.savez(inside, w=np.array([Evil()], object), allow_pickle=True)
    plain, tensors = folder / "a.pkl", folder / "a.pt"
    plain.write_bytes(pickle.dumps(Evil()))
    torch.save({"w": Evil()}, tensors)
    return [objects, inside, plain, tensors]


def test_no_file_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in evil_files(tmp_path):
        with pytest.raises(UserError, match="is not an .npy, .npz or .pt file of numbers"):
            latents_in(path, NET)
    assert not (tmp_path / "marker").exists()


def damaged() -> dict[str, bytes]:
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, WS)
    np.savez(npz, w=WS)
    whole = npy.getvalue()
    huge = whole.replace(b"(3, 6, 8), }", b"(30000000000000, 8)}", 1)
    locked = bytearray(npz.getvalue())
    locked[locked.index(b"PK\1\2") + 8] |= 1  # says that it is encrypted
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    return {"empty": b"", "text": b"hello", "cut": whole[:-9], "header": whole[:40], "huge": huge,
            "version": b"\x93NUMPY\x09\x00" + whole[8:], "cut zip": npz.getvalue()[:-30], "flags": bytes(locked),
            "no member": empty.getvalue(), "words": whole.replace(b"descr", b"de\xffcr")}  # fmt: skip


@pytest.mark.parametrize("kind", damaged())
def test_damaged_files_are_one_line(kind, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(damaged()[kind])
    with pytest.raises(UserError) as raised:
        latents_in(path, NET)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_what_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "absent.npy", Path("/dev/zero")):
        with pytest.raises(UserError, match="cannot read"):
            read_array(path, ("w",))


# Directions


@pytest.mark.parametrize(("name", "in_z"), [
    ("stylegan_ffhq_smile_boundary.npy", True), ("stylegan_ffhq_smile_w_boundary.npy", False), ("smile.npy", False),
])  # fmt: skip
def test_a_boundary_in_z_is_known_by_its_name(name, in_z, tmp_path):
    boundary = np.random.default_rng(0).standard_normal((1, 8))  # float64 [1,D], as InterFaceGAN publishes them
    _, said = directions_in(written(tmp_path / name, boundary / np.linalg.norm(boundary)), NET)
    assert ("are in z, unless" in said) is in_z


def test_a_boundary_comes_in_and_moves_as_far_as_other_directions(tmp_path):
    normal = RANDOM.standard_normal((1, 8))
    for scale in (1.0, 50.0):
        found, said = directions_in(written(tmp_path / "smile_w_boundary.npy", normal * scale), NET)
        assert said == "[1, 8] of float64, read as 1 direction in W" and found.names == ("smile_w",)
        assert torch.allclose(
            found.vectors[0, 0].double(), torch.from_numpy(normal[0] / np.linalg.norm(normal)), atol=1e-6
        )
        w = NET.G.mapping(torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)))
        assert float(found.scales[0]) == pytest.approx(float((w @ found.vectors[0, 0]).std()), rel=0.1)
        assert found.layers == (tuple(range(6)),)


def test_components_of_ganspace_come_in_with_their_shares(tmp_path):
    components, shares = RANDOM.standard_normal((4, 1, 8)).astype(np.float32), np.array([0.4, 0.3, 0.2, 0.05])
    np.savez(tmp_path / "pca.npz", act_comp=np.zeros((4, 1, 9)), lat_comp=components, var_ratio=shares)
    found, said = directions_in(tmp_path / "pca.npz", NET)
    assert said == "lat_comp [4, 1, 8] of float32, read as 4 directions in W"
    assert found.names == ("pca0", "pca1", "pca2", "pca3") and torch.allclose(
        found.shares.double(), torch.tensor(shares)
    )


def test_directions_with_a_row_for_each_layer(tmp_path):
    found, said = directions_in(written(tmp_path / "age.pt", WS), NET)
    assert said.endswith("read as 3 directions in W+") and found.vectors.shape == (3, 6, 8)
    assert torch.allclose(found.vectors.norm(dim=(1, 2)), torch.tensor(6.0).sqrt())
    save_directions(tmp_path / "a.direction.safetensors", found, NET)


@pytest.mark.parametrize("array", [np.zeros((1, 8)), np.zeros((1, 9)) + 1, np.zeros((2, 5, 8)) + 1, np.zeros((0, 8))])
def test_arrays_that_are_no_directions(array, tmp_path):
    with pytest.raises(UserError, match=r"does not fit|without length"):
        directions_in(written(tmp_path / "a.npy", array), NET)


# Out


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_what_goes_out_comes_in_again(suffix, tmp_path):
    ours, theirs, again = tmp_path / "a.latent.safetensors", tmp_path / f"a{suffix}", tmp_path / "b.latent.safetensors"
    noise = tuple(m.expand(3, -1, -1, -1) for m in NET.G.own_noise())
    save_latents(ours, Latents(torch.from_numpy(WS), ("a", "b", "c"), ("a", "b", "c"), noise=noise), NET)
    said = exchange(ours, theirs, NET)
    assert said == "3 latents; noise maps and names are left out, written as [3, 6, 8] of float32"
    exchange(theirs, again, NET)
    assert torch.equal(load_latents(again, NET).ws, torch.from_numpy(WS))
    found, _ = directions_in(written(tmp_path / "smile.npy", WS[:2, 0]), NET)
    save_directions(tmp_path / "s.direction.safetensors", found, NET)
    assert "written as [2, 8]" in exchange(tmp_path / "s.direction.safetensors", theirs, NET)
    assert torch.equal(directions_in(theirs, NET)[0].vectors, found.vectors)


def test_other_destinations(tmp_path):
    source = written(tmp_path / "a.npy", WS)
    for dest in ("a.safetensors", "b.npy", "a"):
        with pytest.raises(UserError, match=r"--dest must end in .latent.safetensors or .direction.safetensors"):
            exchange(source, tmp_path / dest, NET)


def test_the_command(models, tmp_path):
    faces = load_snapshot(models / "faces.safetensors")
    ws = faces.renderer.map(torch.randn(2, faces.config.z_dim)).numpy()
    source, dest = written(tmp_path / "projected_w.npz", ws), tmp_path / "eva.latent.safetensors"

    def run(*words: object) -> str:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == (2 if "Error" in result.output else 0), result.output
        return result.output

    network = ("--network", models / "faces.safetensors")
    first = run(*network, "--latents", source, "--dest", dest)
    assert f"{source}: w {list(ws.shape)} of float32, read as 2 latents in W" in first and "replaces" not in first
    assert "1 file: " in first and torch.equal(load_latents(dest, faces).ws, torch.from_numpy(ws))
    assert "; replaces 1 older file" in run(*network, "--latents", source, "--dest", dest)
    assert "is one of the inputs" in run(*network, "--latents", dest, "--dest", dest)
    assert "--latents needs --network MODEL" in run("--latents", source, "--dest", dest)
    assert "and no other option" in run(*network, "--latents", source, "--dest", dest, "--half")
    run(
        *network,
        "--latents",
        written(tmp_path / "age_boundary.npy", ws[:1, 0]),
        "--dest",
        tmp_path / "age.direction.safetensors",
    )
    assert load_directions(tmp_path / "age.direction.safetensors", faces).names == ("age",)
