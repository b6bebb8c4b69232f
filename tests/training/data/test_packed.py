"""Laws of the cache of reduced images, and of its repair after damage."""

import multiprocessing
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from torch_utils.errors import UserError
from training.data import packed as module
from training.data.archive import Archive, ArchiveWriter, encode_png
from training.data.packed import CheckedPages, checked, pack_pyramid, packed, rebuilt


@pytest.fixture(autouse=True)
def no_chosen_cache(monkeypatch):
    monkeypatch.delenv("STYLEGAN_CACHE", raising=False)


def make(path: Path, count: int = 6, height: int = 16, width: int = 16, channels: int = 3, seed: int = 0) -> Archive:
    with ArchiveWriter(path) as writer:
        for image in np.random.RandomState(seed).randint(0, 256, (count, height, width, channels), dtype=np.uint8):
            writer.add(image)
    return Archive.open(path)


def box(archive: Archive, factor: int) -> np.ndarray:
    """The definition, in exact arithmetic: [N,C,h,w]."""
    full = np.stack([archive.read(i) for i in range(len(archive))]).astype(np.float64)
    n, h, w, c = full.shape
    means = full.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4))
    return np.rint(means).astype(np.uint8).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24)])
def test_every_size_is_the_box_mean_of_the_full_size(tmp_path, height, width, channels):
    archive = make(tmp_path / "a.zip", 3, height, width, channels)
    sizes = [(height // f, width // f) for f in (1, 2, 4)]
    pyramid = pack_pyramid(archive, sizes)
    for factor, size in zip((1, 2, 4), sizes, strict=True):
        assert pyramid[size].shape == (3, channels, *size)
        assert np.array_equal(pyramid[size], box(archive, factor))
        assert not pyramid[size].flags.writeable


def test_one_size_at_a_time_equals_the_pyramid(tmp_path):
    archive = make(tmp_path / "a.zip")
    pyramid = {size: np.array(pages) for size, pages in pack_pyramid(archive, [(4, 4), (8, 8)]).items()}
    shutil.rmtree(tmp_path / "a.zip.cache")
    for size, pages in pyramid.items():
        assert np.array_equal(packed(archive, *size), pages)


def test_images_are_decoded_once_for_all_sizes_and_never_again(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    reads = []
    read = Archive.read
    monkeypatch.setattr(Archive, "read", lambda self, i: reads.append(i) or read(self, i))
    pack_pyramid(archive, [(16, 16), (8, 8), (4, 4)])
    assert sorted(reads) == list(range(6))
    pack_pyramid(archive, [(16, 16), (4, 4)])
    packed(archive, 8, 8)
    assert len(reads) == 6


def test_small_chunks_change_nothing(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    monkeypatch.setattr(module, "CHUNK_BYTES", 2 * 16 * 16 * 3)
    assert np.array_equal(packed(archive, 8, 8), box(archive, 2))


def test_a_changed_archive_is_packed_again_and_the_old_pages_go(tmp_path):
    old = np.array(packed(make(tmp_path / "a.zip", seed=0), 4, 4))
    changed = make(tmp_path / "a.zip", seed=1)
    assert np.array_equal(packed(changed, 4, 4), box(changed, 4))
    assert not np.array_equal(packed(changed, 4, 4), old)
    assert len(list((tmp_path / "a.zip.cache").iterdir())) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_the_wrong_length_is_never_trusted(tmp_path, change):
    archive = make(tmp_path / "a.zip")
    packed(archive, 4, 4)
    (page_file,) = (tmp_path / "a.zip.cache").iterdir()
    os.truncate(page_file, page_file.stat().st_size + change)
    assert np.array_equal(packed(archive, 4, 4), box(archive, 4))


def test_leftovers_of_killed_runs_go_but_not_those_of_living_ones(tmp_path):
    archive = make(tmp_path / "a.zip")
    cache = tmp_path / "a.zip.cache"
    cache.mkdir()
    for name in ("dead.tmp", "alive.tmp"):
        (cache / name).touch()
    os.utime(cache / "dead.tmp", (1, 1))
    packed(archive, 4, 4)
    assert {path.suffix for path in cache.iterdir()} == {".u8", ".tmp"}
    assert not (cache / "dead.tmp").exists()


def test_what_an_earlier_version_read_is_read_again_and_makes_room(tmp_path):
    archive = make(tmp_path / "a.zip")
    wanted = packed(archive, 4, 4)
    (page_file,) = (tmp_path / "a.zip.cache").iterdir()
    earlier = page_file.with_name(page_file.name.replace(".srgb", ""))
    del wanted
    page_file.rename(earlier)
    assert earlier != page_file and np.array_equal(packed(archive, 4, 4), box(archive, 4))
    assert [*(tmp_path / "a.zip.cache").iterdir()] == [page_file]


def test_a_broken_image_leaves_nothing_behind(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    read = Archive.read

    def failing(self, i):
        if i == 4:
            raise UserError("broken")
        return read(self, i)

    monkeypatch.setattr(Archive, "read", failing)
    with pytest.raises(UserError, match="broken"):
        packed(archive, 4, 4)
    assert list((tmp_path / "a.zip.cache").iterdir()) == []


def _pack(path, barrier, results):
    archive = Archive.open(path)
    barrier.wait()
    results.put(int(packed(archive, 16, 16, progress=False).sum(dtype=np.int64)))


def test_two_runs_may_build_it_at_once(tmp_path):
    archive = make(tmp_path / "a.zip", 300, 32, 32)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    runs = [context.Process(target=_pack, args=(tmp_path / "a.zip", barrier, results)) for _ in range(2)]
    for run in runs:
        run.start()
    sums = [results.get(timeout=60) for _ in runs]
    for run in runs:
        run.join()
    assert sums == [int(box(archive, 2).sum(dtype=np.int64))] * 2
    assert [path.suffix for path in (tmp_path / "a.zip.cache").iterdir()] == [".u8"]


@pytest.mark.parametrize(
    ("height", "width", "wanted", "cure"),
    [
        (12, 12, (8, 8), "--resolution 16`"),
        (16, 16, (32, 32), "--resolution 32`"),
        (16, 16, (8, 4), "--resolution 8x16`"),
        (24, 24, (8, 8), "--resolution 32`"),
        (16, 16, (5, 5), "--resolution 20`"),
    ],
)
def test_a_size_that_halving_cannot_reach_is_refused_with_the_cure(tmp_path, height, width, wanted, cure):
    archive = make(tmp_path / "a.zip", 1, height, width)
    with pytest.raises(UserError, match=f"holds {width}x{height} images.* into {wanted[1]}x{wanted[0]}: .*{cure}"):
        packed(archive, *wanted)
    assert not (tmp_path / "a.zip.cache").exists()


def test_the_cache_goes_elsewhere_on_request_or_if_it_must(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "chosen"))
    packed(archive, 4, 4)
    assert len(list((tmp_path / "chosen/data").iterdir())) == 1

    monkeypatch.delenv("STYLEGAN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "a.zip.cache").touch()  # a file where the folder should be: as unwritable for root as for others
    assert np.array_equal(packed(archive, 4, 4), box(archive, 4))
    assert len(list((tmp_path / "home/.cache/stylegan/data").iterdir())) == 1

    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "a.zip"))
    with pytest.raises(UserError, match="Cannot write to .*: set STYLEGAN_CACHE"):
        packed(archive, 8, 8)


def test_a_folder_of_its_own_on_request(tmp_path, capsys):
    make(tmp_path / "a.zip")
    packed(Archive.open(tmp_path / "a.zip"), 4, 4)
    said = capsys.readouterr().out
    assert f"MB in {tmp_path / 'a.zip.cache'}; --cache DIR puts them elsewhere" in said
    shutil.rmtree(tmp_path / "a.zip.cache")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.tmp").touch()
    os.utime(tmp_path / "own/mine.tmp", (10**9, 10**9))
    archive = Archive.open(tmp_path / "a.zip", tmp_path / "own")
    assert np.array_equal(packed(archive, 4, 4), box(archive, 4))
    assert (tmp_path / "own/mine.tmp").exists() and not (tmp_path / "a.zip.cache").exists()
    assert f"MB in {tmp_path / 'own/a.zip.cache'}" in capsys.readouterr().out
    packed(archive, 4, 4)
    assert capsys.readouterr().out == ""


def test_what_the_reduced_images_will_take_is_known_before_they_are_made(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    sizes = [(16, 16), (8, 8), (4, 4)]
    told = checked(archive, sizes)
    needed = len(archive) * sum(archive.channels * side * side + 4 for side, _ in sizes)
    assert told.startswith(f"{needed / 1e6:,.1f} MB in {tmp_path / 'a.zip.cache'} (")
    assert not (tmp_path / "a.zip.cache").exists()
    packed(archive, 8, 8)
    assert "already" not in checked(archive, sizes) and "which are there already" in checked(archive, [(8, 8)])
    assert sum(path.stat().st_size for path in (tmp_path / "a.zip.cache").iterdir()) < needed
    with pytest.raises(UserError, match="halv"):
        checked(archive, [(5, 5)])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="MiB are free: make room, or put them on another one with --cache DIR"):
        checked(archive, sizes)


@pytest.mark.parametrize("whole", [True, False])
def test_images_that_cannot_be_trained_on_are_found_before(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(module, "CHECKED_PIXELS", 1 << 20 if whole else 0)
    noise = np.random.RandomState(0).randint(0, 256, (8, 16, 3), np.uint8)
    for name, image in (("a.png", noise[:, :8]), ("b.png", noise)):
        (tmp_path / name).write_bytes(encode_png(image))
    with pytest.raises(UserError, match="b.png .*make them equal"):
        checked(Archive.open(tmp_path), [(4, 4)])
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    if whole:
        with pytest.raises(UserError, match="Cannot read b.png"):
            checked(Archive.open(tmp_path), [(4, 4)])
    else:
        assert "headers of all images are in order" in checked(Archive.open(tmp_path), [(4, 4)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_files_that_earlier_versions_put_into_the_chosen_folder_itself_are_used(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    packed(archive, 4, 4)
    (tmp_path / "a.zip.cache").rename(tmp_path / "chosen")
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setattr(module, "_build", None)
    assert np.array_equal(packed(archive, 4, 4), box(archive, 4))


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match="needs 0 MiB .* but 0 MiB are free: make room"):
        packed(archive, 4, 4)
    assert list((tmp_path / "a.zip.cache").iterdir()) == []


def spoil(pages: np.memmap, index: int) -> None:
    """Change one byte of an image on the disk."""
    with Path(str(pages.filename)).open("r+b") as file:
        file.seek(index * pages[0].size + 5)
        file.write(bytes([pages[index].flat[5] ^ 1]))


def test_what_is_read_is_what_was_packed_whatever_happened_to_the_file(tmp_path, capsys):
    archive = make(tmp_path / "a.zip")
    right = np.array(packed(archive, 8, 8))
    spoil(packed(archive, 8, 8), 4)
    pages = CheckedPages(archive, (8, 8))
    capsys.readouterr()
    assert np.array_equal(pages.read(np.array([0, 1])), right[:2]) and capsys.readouterr().out == ""
    assert np.array_equal(pages.read(np.array([5, 4, 4])), right[[5, 4, 4]])
    assert np.array_equal(pages.read(np.arange(6)), right)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "is damaged: rebuilding it from" in said[0]
    assert np.array_equal(packed(archive, 8, 8), right)


@pytest.mark.parametrize("left", [0, 100, -1, -4])
def test_a_file_that_is_cut_short_under_a_run_is_rebuilt(left, tmp_path, capsys):
    archive = make(tmp_path / "a.zip")
    pages = CheckedPages(archive, (8, 8))
    right = pages.read(np.arange(6)).copy()
    path = Path(str(packed(archive, 8, 8).filename))
    os.truncate(path, left if left >= 0 else path.stat().st_size + left)
    assert np.array_equal(pages.read(np.arange(6)), right)
    assert "cut short" in capsys.readouterr().out
    assert np.array_equal(pages.read(np.arange(6)), right) and capsys.readouterr().out == ""


def test_damaged_checksums_are_rebuilt_with_their_file(tmp_path, capsys):
    archive = make(tmp_path / "a.zip")
    pages = packed(archive, 8, 8)
    right = np.array(pages)
    with Path(str(pages.filename)).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\xff\xff\xff")
    assert np.array_equal(CheckedPages(archive, (8, 8)).read(np.arange(6)), right)
    assert "is damaged" in capsys.readouterr().out


def test_what_another_process_has_rebuilt_is_only_opened_again(tmp_path, monkeypatch, capsys):
    archive = make(tmp_path / "a.zip")
    pages = CheckedPages(archive, (8, 8))
    right = np.array(packed(archive, 8, 8))
    spoil(packed(archive, 8, 8), 0)
    rebuilt(archive, (8, 8))
    capsys.readouterr()
    monkeypatch.setattr(module, "rebuilt", lambda *_: pytest.fail("it was intact"))
    assert np.array_equal(pages.read(np.array([0])), right[:1]) and capsys.readouterr().out == ""


def test_damage_that_stays_is_an_error(tmp_path, monkeypatch):
    archive = make(tmp_path / "a.zip")
    spoil(packed(archive, 8, 8), 3)
    monkeypatch.setattr(module, "rebuilt", lambda *_: packed(archive, 8, 8))
    with pytest.raises(UserError, match="damaged again.*STYLEGAN_CACHE"):
        CheckedPages(archive, (8, 8)).read(np.array([3]))


def test_a_file_that_was_cut_short_while_it_is_read_is_built_again(tmp_path, capsys):
    """Reading behind the end of a mapped file would end the process."""
    archive = make(tmp_path / "a.zip")
    right = np.array(packed(archive, 8, 8))
    pages = CheckedPages(archive, (8, 8))
    assert np.array_equal(pages.read(np.arange(6)), right)
    (page_file,) = (tmp_path / "a.zip.cache").iterdir()
    os.truncate(page_file, 10)
    assert np.array_equal(pages.read(np.arange(6)), right)
    assert np.array_equal(packed(archive, 8, 8), right)
