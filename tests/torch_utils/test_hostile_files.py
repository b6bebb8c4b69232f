"""Files that ask for more than they hold are refused in one line, before anything of that size is made."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from torch_utils.checkpoint import SEAL, damage, load_state, load_tensors
from torch_utils.errors import UserError
from torch_utils.text import parse_seeds, printable
from torch_utils.untrusted import ZIP_ERRORS, excess, limits, parse_json, read_member

ROOT = Path(__file__).parents[2]


def calling(function: Any, *arguments: Any) -> Any:
    class Hostile:
        def __reduce__(self) -> Any:
            return function, arguments

    return Hostile()


def repacked(source: Path, method: int = zipfile.ZIP_STORED, program: bytes | None = None) -> Path:
    """A file of torch.save, packed by another method, or with another pickle in it."""
    path = source.with_name("again.pt")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, program if program and name.endswith("data.pkl") else old.read(name))
    return path


@pytest.mark.parametrize(
    "content",
    [calling(bytearray, 1 << 40), calling(torch.Tensor, 1 << 40), [calling(bytearray, 1 << 30)] * 8,
     calling(complex, 1, 2), torch.zeros(1, 1).to_sparse()],
    ids=["bytearray", "tensor", "bytearrays", "complex", "sparse"],
)  # fmt: skip
def test_states_may_hold_tensors_and_plain_data_only(content: Any, tmp_path: Path) -> None:
    torch.save({"x": content}, tmp_path / "s.pt")
    with pytest.raises(pickle.UnpicklingError, match="asks for"):
        load_state(tmp_path / "s.pt")


def test_a_packed_state_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "s.pt")
    bomb = repacked(tmp_path / "s.pt", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 14
    with pytest.raises(pickle.UnpicklingError, match="compressed"):
        load_state(bomb)
    assert load_state(repacked(tmp_path / "s.pt"))["x"].shape == (1 << 20,)


@pytest.mark.parametrize("program", [b"", b".", b"\x80\x02]" * 9, b"\x80\x02h\x07.", b"\x80\x02NR.", b"\x80\x02Nb."])
def test_states_that_make_no_sense(program: bytes, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, tmp_path / "s.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_state(repacked(tmp_path / "s.pt", program=program or b"\0"))


ENTRY = {"encrypted": (8, 1), "another method": (10, 99), "a folder": (38, 0x10), "a size": (20, 3), "a place": (42, 8)}


@pytest.mark.parametrize("name", ENTRY)
def test_a_table_of_contents_that_lies(name: str, tmp_path: Path) -> None:
    """In a file without a checksum of its own, as earlier versions wrote them."""
    path, (offset, flips) = tmp_path / "s.pt", ENTRY[name]
    torch.save({"x": torch.arange(40.0)}, path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"s/data/0", content.index(b"PK\x01\x02")) - 46
    content[entry + offset] ^= flips
    path.write_bytes(content)
    assert damage(path).isprintable() and damage(path)
    with pytest.raises(pickle.UnpicklingError):
        load_state(path)


def test_one_member_under_many_names_is_not_read_many_times(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    torch.save({"x": torch.zeros(1 << 12)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist += [max(archive.filelist, key=lambda member: member.file_size)] * 100
        archive.comment = b" "  # so that the table is written again
    assert damage(path) and len(zipfile.ZipFile(path).infolist()) > 100
    with pytest.raises(pickle.UnpicklingError, match="more data than its size"):
        load_state(path)


SEALED_BY = {"by nobody": lambda content: content, "again": lambda content: content + SEAL + sha256(content).digest()}


@pytest.mark.parametrize("sealed", SEALED_BY)
@given(data=st.data())
def test_a_damaged_state_is_a_state_or_refused(
    sealed: str, data: st.DataObject, damaged: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where somebody has computed its checksum."""
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    torch.save({"x": torch.arange(9.0), "sums": {"d": [1.5, 3]}}, path)
    path.write_bytes(SEALED_BY[sealed](damaged(data, path.read_bytes())))
    trouble = damage(path)
    try:
        assert isinstance(load_state(path), dict)
    except pickle.UnpicklingError as error:
        assert trouble or sealed == "again"
        assert printable(str(error))


def test_an_old_file_cannot_claim_a_storage_that_it_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "s.pt"
    torch.save({"x": torch.zeros(300)}, path, _use_new_zipfile_serialization=False)
    assert load_state(path)["x"].shape == (300,)
    path.write_bytes(path.read_bytes().replace(struct.pack("<BH", ord("M"), 300), b"J\0\0\0\x40"))
    with pytest.raises(pickle.UnpicklingError, match="declares"):
        load_state(path)


def header(**tensors: Any) -> bytes:
    text = json.dumps({name: dict(zip(("dtype", "shape", "data_offsets"), t)) for name, t in tensors.items()}).encode()
    return struct.pack("<Q", len(text)) + text


BROKEN = {
    "a header of 2^60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
    "a header of 17 MiB": struct.pack("<Q", 17 << 20) + b"{" + b" " * 100,
    "nesting": struct.pack("<Q", 10000) + b'{"a":' * 2000,
    "a shape that overflows": header(x=("F32", [1 << 40, 1 << 40], [0, 4])) + b"0000",
    "an empty shape that overflows": header(x=("F32", [0, (1 << 64) - 1], [0, 0])),
    "overlap": header(x=("F32", [1], [0, 4]), y=("F32", [1], [0, 4])) + b"0000",
    "a gap": header(x=("F32", [1], [4, 8])) + b"0" * 8,
    "offsets that run backwards": header(x=("F32", [1], [4, 0])) + b"0000",
    "a strange type": header(x=("F6_E2M3", [4], [0, 3])) + b"000",
}


@pytest.mark.parametrize("name", BROKEN)
def test_headers_that_lie(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(BROKEN[name])
    with pytest.raises(UserError, match="x.safetensors") as caught:
        load_tensors(tmp_path / "x.safetensors")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_of_a_zip_have_a_limit(method: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("x", bytes(3 << 20))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert read_member(archive, "x", "table_mib") == bytes(3 << 20)
        monkeypatch.setenv("STYLEGAN_LIMITS", "table_mib=2")
        with pytest.raises(ValueError, match="STYLEGAN_LIMITS=table_mib=3"):
            read_member(archive, "x", "table_mib")
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 1000)  # now it lies about its size
    (tmp_path / "x.zip").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive, pytest.raises(ZIP_ERRORS):
        read_member(archive, "x", "table_mib")


def test_limits_are_raised_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the limit is 256" in excess("it", 300 << 20, "table_mib")
    monkeypatch.setenv("STYLEGAN_LIMITS", "table_mib=300, download_gib=7")
    assert excess("it", 300 << 20, "table_mib") == "" and limits().download_gib == 7
    for wrong in ("table_mib", "table_mib=x", "table_mib=-1", "colour=3", "table_mib=" + "9" * 99):
        monkeypatch.setenv("STYLEGAN_LIMITS", wrong)
        with pytest.raises(UserError, match="table_mib"):
            limits()


def test_a_hostile_state_costs_no_memory(tmp_path: Path) -> None:
    torch.save([calling(bytearray, 1 << 30)] * 4, tmp_path / "s.pt")
    code = (
        "import sys, pickle, resource\nfrom pathlib import Path\nfrom torch_utils.checkpoint import load_state\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_state(Path(sys.argv[1]))\nexcept pickle.UnpicklingError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.pt")], cwd=ROOT, capture_output=True, text=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert done.returncode == 0 and int(done.stdout) * unit < 256 << 20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit < 4 << 30


@given(text=st.one_of(st.text(), st.text("0123456789-, ")))
@example("9" * 5000)
@example("0-" + "9" * 5000)
@example("٣-٤")
def test_any_text_is_seeds_or_a_user_error(text: str) -> None:
    try:
        seeds = parse_seeds(text.replace("99", "9") if len(text) < 100 else text)
    except UserError as error:
        assert str(error)
    else:
        assert all(type(seed) is int for seed in seeds)


@given(content=st.one_of(st.binary(), st.text('[]{}",:0123456789eE+-.nul')))
@example("[" * 100_000)
@example('{"a":' * 100_000)
@example("9" * 5000)
@example(b"\xff\xfe\x00\xd8")
def test_any_text_is_json_or_a_value_error(content: str | bytes) -> None:
    try:
        parse_json(content)
    except ValueError as error:
        assert str(error)


@given(text=st.text())
@example("\x1b[2J\n\ud800\u202e")
def test_what_is_printed_is_one_line(text: str) -> None:
    assert printable(text).isprintable()
    printable(text).encode()


@given(data=st.data())
def test_a_damaged_header_is_tensors_or_a_user_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(header(x=("F32", [2, 3], [0, 24]), y=("F16", [1], [24, 26])) + bytes(26))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        load_tensors(path)
    except UserError as error:
        assert str(error)
