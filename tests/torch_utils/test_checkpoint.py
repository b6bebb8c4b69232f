"""Files are whole or not there, and opening them runs nothing."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
from collections import namedtuple
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from torch_utils.checkpoint import SEAL, damage, load_state, load_tensors, require_space, save_state, save_tensors
from torch_utils.errors import UserError


def test_states_come_back(tmp_path):
    parts = {"net": {"w": torch.randn(3)}, "nimg": 12, "text": "x", "list": [1, 2.5, None], "flag": True}
    save_state(tmp_path / "s.pt", parts)
    again = load_state(tmp_path / "s.pt")
    assert torch.equal(again["net"].pop("w"), parts["net"].pop("w"))
    assert again == parts


def test_a_state_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harmed"),))

    torch.save({"x": Evil()}, tmp_path / "s.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(tmp_path / "s.pt")
    assert not (tmp_path / "harmed").exists()


def test_tensors_come_back_with_their_header(tmp_path):
    shared = torch.randn(4, 6)
    tensors = {"plain": shared, "same memory": shared, "turned": shared.T, "slice": shared[1:3, ::2],
               "half": shared.bfloat16(), "count": torch.tensor(7)}  # fmt: skip
    header = {"number": 1.5, "text": "ü", "nested": {"list": [1, None, True]}}
    save_tensors(tmp_path / "t.safetensors", tensors, header)
    again, read = load_tensors(tmp_path / "t.safetensors")
    assert read == header
    assert again.keys() == tensors.keys()
    assert all(
        torch.equal(value, tensors[name]) and value.dtype == tensors[name].dtype for name, value in again.items()
    )


def test_every_byte_of_the_tensors_and_the_header_counts(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.arange(9.0), "h": torch.ones(3).bfloat16(), "n": torch.tensor(7)}, {"alpha": 0.5})
    whole, read = path.read_bytes(), load_tensors(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            tensors, header = load_tensors(path)
        except UserError:
            continue
        # Then only the name of the checksum has changed, or a space at the end.
        assert all(torch.equal(tensor, read[0][name]) for name, tensor in tensors.items())
        assert header.items() >= read[1].items()


def test_changed_weights_are_named_as_the_reason(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(1000)}, {})
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.safetensors has changed since it was written: its checksum is wrong"):
        load_tensors(path)


@pytest.mark.parametrize("length", range(1, 9))  # of the header, which is what moves the tensors
def test_tensors_that_were_read_lie_where_fresh_ones_do(length, tmp_path):
    # A product of matrices may round by the address, and then a copy would not draw quite what the original does.
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.ones(3), "b": torch.ones(50, 50)}, {"name": 8 * length * "x"})
    tensors, _ = load_tensors(path)
    assert all(t.data_ptr() % 64 == 0 for t in tensors.values())


def test_a_snapshot_can_be_read_by_whoever_may_read_files(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    save_tensors(tmp_path / "t.safetensors", {"x": torch.zeros(1)}, {})
    save_state(tmp_path / "s.pt", {"x": 1})
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_of_other_software_is_no_damaged_file(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "t.safetensors", metadata={"format": "pt"})
    try:
        tensors, header = load_tensors(tmp_path / "t.safetensors")
    except UserError as error:
        assert "not a complete" not in str(error)
    else:
        assert tensors.keys() == {"x"}
        assert "format" not in header or header["format"] == "pt"


def save_tensors_to(path: Path) -> None:
    save_tensors(path, {"x": torch.ones(1000)}, {})


def save_state_to(path: Path) -> None:
    save_state(path, {"x": torch.ones(1000)})


both = pytest.mark.parametrize("save", [save_state_to, save_tensors_to])


@both
def test_a_full_disk_is_noticed_before_anything_is_written(save, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@both
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(save, tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((OSError, UserError)):
        save(tmp_path / "f")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


@both
def test_a_disk_that_fills_up_meanwhile_is_a_user_error(save, tmp_path):
    """torch and safetensors say it with errors of their own, and hide what the disk said."""
    (tmp_path / "f").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(UserError, match="cannot write .*File too large.*everything saved before is intact"):
            save(tmp_path / "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"old"


def test_damage_of_any_kind_is_seen_by_the_checksums(tmp_path):
    save_state(tmp_path / "s.pt", {"x": torch.ones(1000), "i": 3})
    whole = (tmp_path / "s.pt").read_bytes()
    assert damage(tmp_path / "s.pt") == ""
    middle = whole.index(torch.ones(4).numpy().tobytes()) + 900
    for spoilt in (whole[:-1], whole[:100], b"", b"x" * 5000, whole[:middle] + b"\1" + whole[middle + 1 :]):
        (tmp_path / "s.pt").write_bytes(spoilt)
        assert damage(tmp_path / "s.pt")
    assert damage(tmp_path / "absent.pt") == "it is missing"


def test_every_byte_counts(tmp_path):
    """Also those of the zip's structure, of which one bit can make a tensor of memory that nothing was read into."""
    path = tmp_path / "s.pt"
    save_state(path, {"x": torch.arange(9.0), "i": 3})
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert damage(path), at
        with pytest.raises(pickle.UnpicklingError):
            load_state(path)


def test_a_state_that_has_lost_its_checksum_is_damaged(tmp_path):
    path = tmp_path / "s.pt"
    save_state(path, {"i": 3})
    whole = path.read_bytes()
    for spoilt in (whole[: whole.rindex(SEAL)], whole + b"\0", whole.replace(SEAL, SEAL.upper())):
        path.write_bytes(spoilt)
        assert "checksum is missing" in damage(path)


def test_states_with_and_without_a_checksum_are_torch_files(tmp_path):
    parts = {"x": torch.arange(9.0), "i": 3}
    save_state(tmp_path / "s.pt", parts)
    assert torch.equal(torch.load(tmp_path / "s.pt", weights_only=True)["x"], parts["x"])
    torch.save(parts, tmp_path / "old.pt")
    assert damage(tmp_path / "old.pt") == "" and load_state(tmp_path / "old.pt")["i"] == 3


def test_the_state_before_is_kept_until_the_new_one_has_been_read_back(tmp_path, monkeypatch):
    newest, previous = tmp_path / "s.pt", tmp_path / "p.pt"
    for number in range(3):
        save_state(newest, {"i": number}, previous)
    assert (load_state(newest)["i"], load_state(previous)["i"]) == (2, 1)
    monkeypatch.setattr("torch_utils.checkpoint.damage", lambda path: "a bad disk")
    with pytest.raises(UserError, match="a bad disk"):
        save_state(newest, {"i": 3}, previous)
    assert (load_state(newest)["i"], load_state(previous)["i"]) == (2, 1)


def test_space_is_measured_with_a_margin(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path, 0)
    with pytest.raises(UserError, match="MiB"):
        require_space(tmp_path, free)


def save_for_ever(folder: Path, saved: Connection) -> None:
    tensor = torch.zeros(3_000_000)
    for i in range(10**9):
        save_state(folder / "s.pt", {"x": tensor.fill_(i), "i": i})
        save_tensors(folder / "t.safetensors", {"x": tensor}, {"i": i})
        saved.send(i)


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.loop", "torch.utils.tensorboard"])  # as other tests do
    for attempt in range(4):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(tmp_path, theirs), daemon=True)
        process.start()
        theirs.close()
        assert ours.recv() == 0  # from now on it writes over whole files
        time.sleep(0.013 * attempt)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        ours.close()
        state = load_state(tmp_path / "s.pt")
        assert torch.equal(state["x"], torch.full((3_000_000,), float(state["i"])))
        tensors, header = load_tensors(tmp_path / "t.safetensors")
        assert torch.equal(tensors["x"], torch.full((3_000_000,), float(header["i"])))
