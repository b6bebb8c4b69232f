"""One list of suffixes says which files are images."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from torch_utils.images import FORMATS
from torch_utils.text import IMAGE_SUFFIXES, has_image_suffix, is_image


@pytest.mark.parametrize("name", ["a.png", "A.JPG", "folder/b.tif", "c.TIFF", "d.e.webp", "f.pgm", "g.gif"])
def test_names_of_images(name: str) -> None:
    assert is_image(name) and has_image_suffix(name)


@pytest.mark.parametrize("name", ["a", "png", "a.txt", "a.png.zip", "dataset.json", "a.latent.safetensors", "", ".png"])
def test_other_names(name: str) -> None:
    assert not is_image(name) and not has_image_suffix(name)


@pytest.mark.parametrize("name", [".a.png", "._a.png", ".git/a.png", "__MACOSX/a.png", "b/__MACOSX/a.png"])
def test_hidden_files_do_not_count(name: str) -> None:
    assert not is_image(name) and has_image_suffix(name)


def test_every_suffix_belongs_to_a_decoder_that_is_used() -> None:
    Image.init()
    known = Image.registered_extensions()
    assert {suffix for suffix in IMAGE_SUFFIXES if known.get(suffix, "HEIF") not in FORMATS} == set()
    assert {suffix for suffix in IMAGE_SUFFIXES if suffix not in known} <= {
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".avifs",
    }  # of optional packages


def test_the_module_imports_nothing_slow() -> None:
    code = "import sys, torch_utils.text; assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
