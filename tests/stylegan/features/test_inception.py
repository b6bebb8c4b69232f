"""Only the published Inception network is taken for it, from the file given, the cache or a download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from stylegan.features import inception
from stylegan.features import weights as package_weights
from stylegan.features.inception import find_file
from torch_utils.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a published file that is short."""
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"inception").hexdigest())


def test_a_file_that_is_given_comes_before_the_cache_and_that_before_a_download(tmp_path, monkeypatch):
    def download(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
        dest.parent.mkdir(parents=True)
        dest.write_bytes(b"inception")
        return dest

    monkeypatch.setattr(package_weights, "download", download)
    path, sha256 = find_file()
    assert path == tmp_path / "cache/features" / inception.FILE and sha256 == inception.SHA256
    monkeypatch.setattr(package_weights, "download", None)  # would fail
    assert find_file() == (path, sha256)
    (tmp_path / "mine.pt").write_bytes(b"inception")
    assert find_file(tmp_path / "mine.pt") == (tmp_path / "mine.pt", sha256)


def test_what_is_wrong_is_one_clear_line(tmp_path, monkeypatch):
    def offline(urls: Sequence[str], dest: Path, *, sha256: str, limit: str) -> Path:
        raise UserError("could not download it")

    monkeypatch.setattr(package_weights, "download", offline)
    with pytest.raises(UserError, match="is not here: could not download it; fetch .* elsewhere and put it at"):
        find_file()
    with pytest.raises(UserError, match="cannot read .*absent.pt"):
        find_file(tmp_path / "absent.pt")
    (tmp_path / "other.pt").write_bytes(b"other")
    with pytest.raises(UserError, match="is not inception-2015-12-05 .its sha256 begins with"):
        find_file(tmp_path / "other.pt")
