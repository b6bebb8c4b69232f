"""If the kernels cannot be built, one line says why and what to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from ops import BuildError, build, cache, toolchain

pytestmark = pytest.mark.usefixtures("stand_in")


def test_if_a_folder_cannot_be_written_the_second_is_used(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "folders", lambda: [tmp_path / "file" / "cache", tmp_path / "second"])
    assert build.find_or_build("cpu").is_relative_to(tmp_path / "second")


def test_no_folder_at_all(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(tmp_path / "file" / "cache"))
    why = build.why_not("cpu")
    assert "file/cache: Not a directory" in why and "set STYLEGAN_OPS_CACHE" in why


def test_a_library_is_found_in_a_folder_that_cannot_be_written(monkeypatch):
    library = build.find_or_build("cpu")
    monkeypatch.setattr(cache, "writable", lambda folders: pytest.fail("searched for a folder to write to"))
    assert build.find_or_build("cpu") == library


def test_a_full_disk(monkeypatch):
    def full(**arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.tempfile, "mkdtemp", full)
    assert "No space left on device; free some space there" in build.why_not("cpu")


def test_a_folder_of_another_user_in_tmp_is_not_trusted(tmp_path, monkeypatch):
    shared, mine = tmp_path / "tmp", tmp_path / "tmp" / "mine"
    mine.mkdir(parents=True)
    shared.chmod(0o1777)
    assert cache.trusted(mine)
    mine.chmod(0o777)
    assert not cache.trusted(mine)
    mine.chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not cache.trusted(mine)
    with pytest.raises(BuildError, match="mine: other users can write there"):
        cache.writable([mine])


def test_the_default_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("STYLEGAN_OPS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folders()[0] == tmp_path / "stylegan" / "ops" and len(cache.folders()) == 2
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without a home
    assert len(cache.folders()) == 1 and "stylegan-ops-" in cache.folders()[0].name


def test_no_compiler(monkeypatch, tmp_path, forget):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler found: 'c++' is not on PATH; install one" in build.why_not("cpu")
    forget()
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert "'/nowhere/g++' is not on PATH" in build.why_not("cpu")
    forget()
    monkeypatch.setenv("CXX", "ccache g++")
    assert (
        "CXX must be the name of one program, because PyTorch accepts no arguments there, got 'ccache g++'"
        in build.why_not("cpu")
    )


def test_no_ninja(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ninja", None)
    with pytest.raises(BuildError, match="pip install ninja"):
        toolchain.ninja_folder()


def test_a_compile_error_is_reported_by_its_first_line_and_stored_in_a_log(stand_in, forget):
    (build.CSRC / "cpu" / "answer.cpp").write_text("int answer() { return forty_two; }\nint more() { return too; }\n")
    why = build.why_not("cpu")
    log = Path(why.split("all of it is in ")[1])
    assert "answer.cpp:1:23: error:" in why and "forty_two" in why and "\n" not in why
    assert "too" in log.read_text() and log.is_relative_to(stand_in)
    assert [found.path for found in cache.leftovers(stand_in)] == [log]
    (build.CSRC / "cpu" / "answer.cpp").write_text("int x;")
    forget()
    assert build.why_not("cpu") == ""


def test_a_link_error_is_reported_too():
    (build.CSRC / "cpu" / "answer.cpp").write_text("int other();\nint answer = other();\n")
    why = build.why_not("cpu")
    assert "undefined symbol" in why


def test_the_first_error_of_several_tools():
    gcc = (
        "Error building extension 'x': [1/2] c++ -Werror=a x.cpp\nFAILED: x.o\nx.cpp:3:1: error: no\nx.cpp:4: error: b"
    )
    assert build.complaint(gcc) == "x.cpp:3:1: error: no"
    assert build.complaint("1 warning\nx.cu(7): error: no") == "x.cu(7): error: no"
    assert build.complaint("ld: cannot find -lc10\ncollect2: error: ld returned 1") == "ld: cannot find -lc10"
    assert build.complaint("something\nelse\n\n") == "else"
    assert build.complaint("") == "it gave no reason"


def test_a_damaged_library_is_named_and_what_to_do():
    library = build.find_or_build("cpu")
    library.unlink()  # not overwritten: this process has it mapped
    library.write_bytes(bytes([*b"\x7fELF\x02", *bytes(200)]))  # of its full length, but nothing in it
    assert f"delete {library.parent} and it will be compiled again" in build.why_not("cpu")


@pytest.mark.parametrize("length", [0, 30, 5000])
def test_a_library_that_was_cut_short_is_compiled_again(length):
    """Loading it would end the process."""
    library = build.find_or_build("cpu")
    whole = library.read_bytes()
    library.unlink()  # not overwritten: this process has it mapped
    library.write_bytes(whole[:length])
    assert build.why_not("cpu") == "" and cache.is_whole(library)


def test_a_full_disk_under_the_lock_names_its_own_folder(stand_in, monkeypatch):
    written = Path.write_text

    def full(path, text, *rest):
        if path.suffix == ".owner":
            raise OSError(28, "No space left on device")
        return written(path, text, *rest)

    monkeypatch.setattr(Path, "write_text", full)
    assert build.why_not("cpu") == f"cannot write to {stand_in}: No space left on device; free some space there"


def test_the_wrong_nvcc(monkeypatch, tmp_path):
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 11.8, V11.8.89'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nvcc.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BuildError, match=r"nvcc is of CUDA 11.8 but torch of CUDA 13.0: install the toolkit"):
        toolchain.cuda_home()
    monkeypatch.setattr(torch.version, "cuda", "11.6")  # minor versions are compatible
    assert toolchain.cuda_home() == tmp_path
    nvcc.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(BuildError, match="nvcc --version' fails"):
        toolchain.cuda_home()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    with pytest.raises(BuildError, match="nvcc is not on PATH"):
        toolchain.cuda_home()


@pytest.mark.parametrize("asked, flags", [("", ["-gencode=arch=compute_120,code=sm_120"]), ("7.5", [])])
def test_cuda_kernels_are_compiled_with_the_toolkit_and_for_the_gpus_of_this_machine(
    monkeypatch, tmp_path, asked, flags
):
    """Or for the requested ones; also if PyTorch has already searched for the toolkit."""
    (build.CSRC / "cuda").mkdir()
    (build.CSRC / "cuda" / "answer.cu").touch()
    monkeypatch.setattr(toolchain, "traits", lambda device: [])
    monkeypatch.setattr(toolchain, "cuda_home", lambda: tmp_path / "toolkit")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/another")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", asked)
    seen = []

    def load(name: str, sources: list[str], *, extra_cuda_cflags: list[str], **rest: object) -> None:
        archs = [flag for flag in extra_cuda_cflags if "arch" in flag]
        seen.append((sources, cpp_extension.CUDA_HOME, os.environ["CUDA_HOME"], archs))
        raise ValueError("Unknown CUDA arch (12.0) or GPU not supported")

    monkeypatch.setattr(cpp_extension, "load", load)
    assert "Unknown CUDA arch (12.0)" in build.why_not("cuda")
    home = str(tmp_path / "toolkit")
    assert seen == [([str(build.CSRC / "cuda" / "answer.cu")], home, home, flags)]
