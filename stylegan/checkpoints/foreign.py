"""Networks of other projects: not read, but named, so that users know what they have.

Nothing in such a file is run or unpacked. It is recognised by names that it must contain.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from torch_utils.text import has_image_suffix
from torch_utils.untrusted import ZIP_ERRORS, read_member

ADVICE = (
    "this project opens its own snapshots, and the published .pkl files of ProGAN, StyleGAN (2019) and StyleGAN2 (2020)"
)

Names = tuple[tuple[tuple[bytes, ...], str], ...]
"""Names that a file must contain, and what it is then; the most specific first."""

_PICKLES: Names = (  # each class of the PyTorch projects is stored with its source
    ((b"torch_utils.persistence", b"SynthesisInput"), "a network of StyleGAN3 (PyTorch)"),
    ((b"torch_utils.persistence",), ""),  # read by `stylegan2_ada`, which says what is wrong with it
    ((b"Network", b"inception"), "a feature network for metrics"),
    ((b"Network", b"vgg16"), "a feature network for metrics"),
    ((b"ctorch", b"_rebuild_tensor"), "a pickle of PyTorch tensors"),
)
_PYTORCH: Names = (
    ((b"tick_nimg", b"G_ema"), "the training state of a run, whose directory opens its newest snapshot"),
    ((b"conv.modulation", b"to_rgb"), "a network of StyleGAN2 (PyTorch, rosinality)"),
    ((b"g_running",), "a network of StyleGAN (PyTorch, rosinality)"),
)
_OLD_FORMAT = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's magic number, an instruction of the first pickle


def _found(content: bytes, among: Names) -> str:
    return next((what for names, what in among if all(name in content for name in names)), "")


def pickle_content(content: bytes) -> str:
    """What the content of a pickle file is, if it is a known kind of another project; "" otherwise."""
    return _found(content, _PICKLES)


def old_torch_content(content: bytes) -> str:
    """The same for PyTorch files of the old format, which are several pickles in a row."""
    return (_found(content, _PYTORCH) or "a PyTorch file") if _OLD_FORMAT in content[:64] else ""


def zip_content(path: Path) -> str:
    """What a zip file is: PyTorch stores networks in such files, NumPy arrays, and this project images."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            programs = [name for name in names if name.endswith("data.pkl")]
            if any("/code/" in name for name in names):
                return "a TorchScript program"
            if programs:
                return _found(read_member(archive, programs[0], "table_mib"), _PYTORCH) or "a PyTorch file"
    except ZIP_ERRORS:
        return "a damaged zip or PyTorch file"
    if any(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays"
    return "an archive of images" if any(map(has_image_suffix, names)) else "a zip file"
