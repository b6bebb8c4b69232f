"""Whatever a pickle says, reading it runs nothing: it gives plain data or a UserError."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stylegan.checkpoints.unpickle import parse_pickle
from torch_utils.errors import UserError


@pytest.fixture
def explosions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `bomb.explode`, which the hostile files below name, was called with."""
    calls: list[str] = []
    bomb = types.ModuleType("bomb")
    monkeypatch.setattr(bomb, "explode", lambda *args: calls.append(repr(args)), raising=False)
    monkeypatch.setitem(sys.modules, "bomb", bomb)
    return calls


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


NETWORK = stack_global("dnnlib.tflib.network", "Network") + b")\x81"
RECONSTRUCT = stack_global("numpy.core.multiarray", "_reconstruct")
NDARRAY = stack_global("numpy", "ndarray")
DTYPE = stack_global("numpy", "dtype")
EMPTY_ARRAY = RECONSTRUCT + NDARRAY + b"K\x00\x85C\x01b\x87R"
EXPLODE = b"cbomb\nexplode\n"

F4 = DTYPE + short("f4") + b"\x85R"
LOD = stack_global("numpy.core.multiarray", "scalar") + F4 + b"C\x04abcd\x86R"
NETWORK_STATE = b"}(" + short("name") + short("G") + short("lod") + LOD + b"u"
SMALL = b"\x80\x04]" + NETWORK + NETWORK_STATE + b"ba" + EMPTY_ARRAY + b"(K\x01K\x01\x85" + F4 + b"\x89C\x04abcdtba."

HOSTILE = {
    "os.system by name": b"\x80\x04" + stack_global("os", "system") + short("id") + b"\x85R.",
    "posix.system, protocol 0": b"cposix\nsystem\n(S'id'\ntR.",
    "builtins.exec": b"\x80\x04" + stack_global("builtins", "exec") + short("1/0") + b"\x85R.",
    "builtins.eval": b"\x80\x02c__builtin__\neval\nU\x031/0\x85R.",
    "getattr": b"\x80\x04" + stack_global("builtins", "getattr") + b".",
    "walking attributes": b"\x80\x04" + stack_global("numpy", "f2py.os.system") + short("id") + b"\x85R.",
    "walking from an allowed module": b"\x80\x04" + stack_global("numpy.core.multiarray", "sys.modules") + b".",
    "a dot in an allowed name": b"\x80\x04" + stack_global("numpy", "ndarray.__class__") + b".",
    "an allowed name split elsewhere": b"\x80\x04" + stack_global("numpy core.multiarray", "scalar") + b".",
    "numpy.load": b"\x80\x04" + stack_global("numpy", "load") + short("x.npy") + b"\x85R.",
    "numpy.core.multiarray.fromfile": b"\x80\x04" + stack_global("numpy.core.multiarray", "fromfile") + b".",
    "torch internals": b"\x80\x04" + stack_global("torch._utils", "_rebuild_tensor_v2") + b")R.",
    "persistence by source": b"\x80\x04"
    + stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
    + b")R.",
    "persistence without a state": b"\x80\x04"
    + stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
    + b"}"
    + short("class_name")
    + short("G")
    + b"s\x85R.",
    "a tensor without numbers": b"\x80\x04" + stack_global("torch._utils", "_rebuild_tensor_v2") + b"(NK\0))\x89}tR.",
    "numbers of a tensor that are none": b"\x80\x04"
    + stack_global("torch.storage", "_load_from_bytes")
    + b"C\x01.\x85R.",
    "numbers of a tensor that run something": b"\x80\x04"
    + stack_global("torch.storage", "_load_from_bytes")
    + b"C"
    + bytes([len(EXPLODE) + 3])
    + EXPLODE
    + b")R.\x85R.",
    "INST": b"(S'id'\nibomb\nexplode\n.",
    "OBJ": b"(" + EXPLODE + b"K\x01o.",
    "NEWOBJ_EX": b"\x80\x04" + EXPLODE + b")}\x92.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a persistent id": b"Pbomb\n.",
    "a persistent id from the stack": b"K\x01Q.",
    "inside the arguments of an array": b"\x80\x04" + RECONSTRUCT + EXPLODE + b"K\x01\x85RK\x00C\x01b\x87R.",
    "inside the state of a network": b"\x80\x04" + NETWORK + b"}" + short("name") + EXPLODE + b")Rsb.",
    "as the state of a network": b"\x80\x04" + NETWORK + EXPLODE + b"b.",
    "calling a network": b"\x80\x04" + NETWORK + b")R.",
    "calling text": b"\x80\x04" + short("os.system") + short("id") + b"\x85R.",
    "calling an array's class": b"\x80\x04" + NDARRAY + b"K\x09\x85R.",
    "attributes for an allowed name": b"\x80\x04" + NDARRAY + b"}" + short("__reduce__") + short("x") + b"sb.",
    "attributes for an empty dict": b"\x80\x04" + stack_global("dnnlib.util", "EasyDict") + b")\x81}K\x01K\x02sb.",
    "encoding with another codec": b"\x80\x04"
    + stack_global("_codecs", "encode")
    + short("x")
    + short("zip")
    + b"\x86R.",
    "elements that are objects": b"\x80\x04" + DTYPE + short("O8") + b"\x85R.",
    "elements that are records": b"\x80\x04" + DTYPE + short("f4,O8") + b"\x85R.",
    "elements of a size that numbers lack": b"\x80\x04" + DTYPE + short("f1") + b"\x85R.",
    "an array of objects": b"\x80\x04"
    + EMPTY_ARRAY
    + b"(K\x01K\x01\x85"
    + DTYPE
    + short("O8")
    + b"\x85R\x89]K\x01atb.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_run_nothing(name: str, explosions: list[str]) -> None:
    with pytest.raises(UserError):
        parse_pickle(HOSTILE[name])
    assert not explosions


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, exec, subprocess.call, os.mkdir])
def test_objects_that_call_on_opening_are_refused(function: Any, protocol: int, tmp_path: Path) -> None:
    made = tmp_path / "made"
    command = {exec: f"open({str(made)!r}, 'w')", os.system: f"touch '{made}'", os.mkdir: str(made)}
    argument = command.get(function, ["touch", str(made)])

    class Hostile:
        def __reduce__(self) -> Any:
            return function, (argument,)

    data = pickle.dumps([1, {"a": Hostile()}], protocol)
    with pytest.raises(UserError):
        parse_pickle(data)
    assert not made.exists()
    pickle.loads(data)
    assert made.exists(), "the file was not hostile, so refusing it proves nothing"


@pytest.mark.parametrize("called", ["os.system", "builtins.eval", "torch._utils._rebuild_tensor"])
def test_the_refusal_names_what_the_file_wants(called: str) -> None:
    module, _, name = called.rpartition(".")
    with pytest.raises(UserError, match=re.escape(called)):
        parse_pickle(b"\x80\x04" + stack_global(module, name) + b".")


def test_a_name_cannot_drive_the_terminal() -> None:
    with pytest.raises(UserError) as refusal:
        parse_pickle(b"\x80\x04" + stack_global("\x1b[2J\n", "x" * 200) + b".")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 250


ABSURD = {
    "text of 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", 2**63 - 1) + b"x.",
    "bytes of 2^40 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "a number of 2^31 bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "an array larger than its bytes": b"\x80\x04"
    + EMPTY_ARRAY
    + b"(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"
    + F4
    + b"\x89C\x04abcdtb.",
    "an array of negative size": b"\x80\x04"
    + EMPTY_ARRAY
    + b"(K\x01J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"
    + F4
    + b"\x89C\x04abcdtb.",
    "an array of a hundred dimensions": b"\x80\x04"
    + EMPTY_ARRAY
    + b"(K\x01("
    + b"K\x01" * 100
    + b"t"
    + F4
    + b"\x89C\x04abcdtb.",
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_cost_nothing(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            parse_pickle(ABSURD[name])
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_endless_instructions_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stylegan.checkpoints.unpickle.MAX_STEPS", 1000)
    assert parse_pickle(b"\x80\x04" + b"N" * 900 + b".") is None
    with pytest.raises(UserError):
        parse_pickle(b"\x80\x04" + b"N" * 1100 + b".")


def test_a_text_copied_a_million_times_is_given_up() -> None:
    text = b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\0"
    copies = (stack_global("_codecs", "encode") + b"h\0" + short("latin1") + b"\x86R") * 1000
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            parse_pickle(b"\x80\x04" + text + b"(" + copies + b"t.")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_keys_that_all_collide_are_given_up() -> None:
    key = b"\x8a\x09" + ((1 << 61) - 1 << 2).to_bytes(9, "little")
    with pytest.raises(UserError):
        parse_pickle(b"\x80\x04}" + key + b"Ns.")


def test_a_memo_index_of_four_billion_costs_nothing() -> None:
    assert parse_pickle(b"\x80\x02K\x07r\xff\xff\xff\xffj\xff\xff\xff\xff.") == 7


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    value = parse_pickle(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    depth = 0
    while value:
        (value,), depth = value, depth + 1
    assert depth == 99_999


@given(data=st.binary())
def test_noise_gives_data_or_a_user_error(data: bytes) -> None:
    with contextlib.suppress(UserError):
        parse_pickle(b"\x80\x04" + data + b".")


TENSOR = pickle.dumps({"a": torch.arange(6.0).view(2, 3)}, protocol=4)


def test_numbers_of_a_tensor_are_read_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are files within the file, whose instructions count as well."""
    monkeypatch.setattr("stylegan.checkpoints.unpickle.MAX_STEPS", 1000)
    numbers = re.search(rb"[BC](?s:.+?)(?=\x94\x85\x94R)", TENSOR)
    assert numbers is not None
    again = stack_global("torch.storage", "_load_from_bytes") + b"h\0\x85R"
    start = b"\x80\x04" + numbers[0] + b"q\0("
    assert len(parse_pickle(start + again * 2 + b"t.")) == 2
    with pytest.raises(UserError):
        parse_pickle(start + again * 30 + b"t.")


@pytest.mark.parametrize("whole", [SMALL, TENSOR], ids=["a network", "a tensor"])
@given(data=st.data())
@settings(max_examples=200)
def test_damaged_files_give_data_or_a_user_error(whole: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UserError):
        parse_pickle(whole[:at])
    damaged = bytearray(whole)
    damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UserError):
        parse_pickle(bytes(damaged))
