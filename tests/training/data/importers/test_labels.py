"""Classes from the source itself, from sub-folders, or from tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from torch_utils.errors import UserError
from training.data.importers.labels import label, unused
from training.data.importers.source import Source


def source(*names: str, manifest: object = None, labels: list[int] | None = None) -> Source:
    found = None if manifest is None else ("dataset.json", json.dumps(manifest).encode())
    return Source("folder", Path("/nowhere"), names, lambda i: b"", labels=labels, manifest=found)


def classes(source: Source, rule: str) -> list[int | None] | None:
    labels = label(source, rule)
    return None if labels is None else list(labels.classes)


@pytest.mark.parametrize("rule", ["auto", "folders"])
def test_sub_folders_are_classes_in_alphabetical_order(rule: str) -> None:
    labels = label(source("in/dog/1.png", "in/cat/2.png", "in/dog/puppy/3.png"), rule)
    assert labels is not None
    assert list(labels.classes) == [1, 0, 1] and labels.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "names",
    [("1.png", "2.png"), ("a/1.png", "a/2.png"), ("a/1.png", "b/2.png", "3.png"), ("00000/1.png", "01000/2.png")],
)
def test_auto_finds_no_classes_if_folders_are_not_classes(names: tuple[str, ...]) -> None:
    images = source(*names)
    assert classes(images, "auto") is None
    several = len({name.rpartition("/")[0] for name in names}) > 1
    assert ("--labels folders" in unused(images, "auto")) is several


def test_what_is_not_used_is_said() -> None:
    folders, known = source("cat/1.png", "dog/2.png"), source("1.png", labels=[1])
    assert unused(folders, "none") == "the sub-folders cat, dog are not used; --labels folders uses them"
    assert unused(known, "none") == "the folder has labels, which --labels auto uses"
    labelled = source("cat/1.png", "dog/2.png", manifest={"labels": None})
    assert "dataset.json says that there are none; --labels folders" in unused(labelled, "auto")
    assert unused(source("1.png"), "auto") == ""


def test_folders_requested() -> None:
    assert classes(source("a/1.png", "b/2.png", "3.png"), "folders") == [0, 1, None]
    with pytest.raises(UserError, match="sub-folders"):
        label(source("a/1.png", "a/2.png"), "folders")


def test_the_source_comes_before_its_folders_and_none_before_all() -> None:
    known = source("a/1.png", "b/2.png", labels=[7, 3])
    assert classes(known, "auto") == [7, 3]
    assert classes(known, "none") is None


def test_dataset_json() -> None:
    pairs = [["a/1.png", 5], ["b/2.png", 0]]
    assert classes(source("a/1.png", "b/2.png", "b/3.png", manifest={"labels": pairs}), "auto") == [5, 0, None]
    assert classes(source("a/1.png", "b/2.png", manifest={"labels": None}), "auto") is None
    nested = Source(
        "zip", Path("/x"), ["in/a.png"], lambda i: b"", manifest=("in/dataset.json", b'{"labels": [["a.png", 2]]}')
    )
    assert classes(nested, "auto") == [2]


@pytest.mark.parametrize("manifest", [[3], {"labels": 3}, {"labels": [["a.png"]]}, {"labels": [["a.png", [0.1]]]}])
def test_damaged_dataset_json_is_one_line(manifest: object) -> None:
    with pytest.raises(UserError, match="--labels none"):
        label(source("a.png", manifest=manifest), "auto")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_finds_images_by_any_of_their_names(tmp_path: Path, separator: str) -> None:
    table = tmp_path / "t.csv"
    rows = [("file", "sex", "age"), ("x/1.png", "m", "10"), ("2.png", "f", "9"), ("3", "m", ""), ("other", "q", "1")]
    table.write_text("\ufeff" + "\n".join(separator.join(row) for row in rows), "utf-8")
    images = source("x/1.png", "y/2.png", "3.png", "4.png")
    assert classes(images, str(table)) == [1, 0, 1, None]
    assert classes(images, f"{table}:age") == [2, 1, None, None]  # 1, 9, 10: by value, not alphabetically


def test_a_table_without_headings(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1.png,b\n2.png,a\n")
    assert classes(source("1.png", "2.png"), str(tmp_path / "t.csv")) == [1, 0]


def test_the_files_may_be_in_any_column_and_paths_written_in_any_way(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",file,kind\n0,photos\\a\\1.png,x\n1,photos\\b\\1.png,y\n")
    assert classes(source("a/1.png", "b/1.png"), str(tmp_path / "t.csv")) == [0, 1]
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 2880\n2.jpg 17\n")
    assert classes(source("1.jpg", "2.jpg"), str(tmp_path / "identity_CelebA.txt")) == [1, 0]


def test_celeba_attributes(tmp_path: Path) -> None:
    (tmp_path / "list_attr_celeba.txt").write_text("2\nBald Smiling\n1.jpg -1  1\n2.jpg -1 -1\n")
    faces = Source("folder", tmp_path / "img_align_celeba", ["1.jpg", "2.jpg"], lambda i: b"")
    labels = label(faces, "list_attr_celeba.txt:Smiling")
    assert labels is not None and list(labels.classes) == [1, 0] and labels.class_names == ("-1", "1")


@pytest.mark.parametrize("name", ["train", "train.zip", "train.tar.gz"])
def test_paths_may_begin_with_the_name_of_the_source(tmp_path: Path, name: str) -> None:
    """Also where the others lie in another folder, and would have the same names."""
    if name == "train":
        (tmp_path / "train").mkdir()
    (tmp_path / "t.csv").write_text("file,kind\ntest/a/1.png,x\ndata/train/a/1.png,y\ndata/train/b/1.png,x\nREADME,y\n")
    faces = replace(source("a/1.png", "b/1.png"), path=tmp_path / name)
    assert classes(faces, str(tmp_path / "t.csv")) == [1, 0]
    labels = {"labels": [["test/a/1.png", 0], ["train/a/1.png", 1], ["train/b/1.png", 0]]}
    assert classes(replace(faces, manifest=("dataset.json", json.dumps(labels).encode())), "auto") == [1, 0]


def test_a_sub_folder_of_the_same_name_comes_first(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,kind\ntrain/1.png,x\ntrain/train/1.png,y\n")
    faces = replace(source("1.png", "train/1.png"), path=tmp_path / "train")
    assert classes(faces, str(tmp_path / "t.csv")) == [None, 0]


def test_names_of_both_sides_are_shown_where_none_fits(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,kind\nx/7.png,x\nx/8.png,y\n")
    both = "which are named as in 'a/1.png', but for example 'x/7.png'"
    with pytest.raises(UserError, match=both):
        classes(source("a/1.png"), str(tmp_path / "t.csv"))
    with pytest.raises(UserError, match=both):
        classes(source("a/1.png", manifest={"labels": [["x/7.png", 0]]}), "auto")


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ("file,age\n1.png,0.5\n", "", "measurements"),
        ("file,age\n1.png,3\n", ":sex", "no column 'sex'"),
        ("file\n1.png\n", "", "single column"),
        ("", "", "is empty"),
        ("file,age\n9.png,3\n", "", "names none of the images"),
        ("file,age\n1.png,3\n1.png,4\n", "", "two classes for 1.png"),
    ],
)
def test_unusable_tables_are_one_line(tmp_path: Path, content: str, column: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        label(source("1.png"), f"{tmp_path / 't.csv'}{column}")
    assert "\n" not in str(error.value)


def test_a_missing_table() -> None:
    with pytest.raises(UserError, match="there is no such file"):
        label(source("1.png"), "nowhere.csv:x")
