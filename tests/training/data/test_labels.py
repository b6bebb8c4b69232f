"""One reader of labels: every published shape of dataset.json, and names written in every way."""

from __future__ import annotations

import json

import pytest

from training.data.labels import (
    find_manifest,
    folder_labels,
    manifest_labels,
    matched,
    numbered,
    parse_manifest,
    tally,
    why_not_classes,
    without_gaps,
)

IMAGES = ("a/1.png", "b/2.png")


@pytest.mark.parametrize(
    "labels",
    [
        [["a/1.png", 1], ["b/2.png", 0]],
        [["a/1.png", 1.0], ["b/2.png", 0.0]],
        [["a/1.png", [1]], ["b/2.png", [0]]],
        [["a/1.png", [0, 1]], ["b/2.png", [1, 0]]],
        [["a/1.png", [0.0, 1.0, 0.0]], ["b/2.png", [1.0, 0.0, 0.0]]],
        [["a/1.png", "1"], ["b/2.png", "0"]],
        {"a/1.png": 1, "b/2.png": 0},
    ],
)
@pytest.mark.parametrize("wrap", [lambda labels: {"labels": labels}, lambda labels: labels])
def test_every_shape_of_class_numbers(labels: object, wrap: object) -> None:
    manifest = parse_manifest(json.dumps(wrap(labels)).encode())  # type: ignore[operator]
    found = manifest_labels(manifest, "dataset.json", IMAGES)
    assert found is not None and list(found.classes) == [1, 0]


def test_names_are_those_of_the_file_or_else_alphabetical() -> None:
    assert numbered(["dog", None, "cat"]) == ([1, None, 0], ("cat", "dog"))
    assert numbered(["dog", "cat"], ["dog", "cat"]) == ([0, 1], ("dog", "cat"))
    assert numbered(["5", "7"], ["7", "5"]) == ([1, 0], ("7", "5"))
    assert numbered([3], ["x"]) == ([3], ("x",))


@pytest.mark.parametrize("label", [-1, 0.5, True, 1 << 20, [0.5, 0.5], [1, 1], [2, -1], {"a": 1}, float("nan")])
def test_what_is_no_class_is_named(label: object) -> None:
    with pytest.raises(ValueError, match="its label"):
        numbered([0, label])


@pytest.mark.parametrize("content", ["{}", '{"labels": null}', '{"labels": []}', '{"labels": [["a/1.png", null]]}'])
def test_no_labels(content: str) -> None:
    assert manifest_labels(parse_manifest(content.encode()), "dataset.json", IMAGES) is None


def test_the_manifest_nearest_to_the_root_counts() -> None:
    assert find_manifest(["x/dataset.json", "x/y/dataset.json", "my-dataset.json"]) == "x/dataset.json"
    pairs = b'{"labels": [["x/1.png", 3]]}'
    for images, root in ((["x/x/1.png"], "x/"), (["x/1.png"], "x/"), (["x/1.png"], "")):
        found = manifest_labels(parse_manifest(pairs), f"{root}dataset.json", images)
        assert found is not None and list(found.classes) == [3]


def test_images_are_found_by_any_name_that_means_only_one() -> None:
    assert matched({"1.png": 5, "b/2": 6}, ["x/a/1.png", "a/b/2.png", "3.png"]) == [5, 6, None]
    assert matched({"C:\\me\\a\\1.png": 5, "C:/me/b/1.png": 6}, ["a/1.png", "b/1.png"]) == [5, 6]
    assert matched({"1.png": 5}, ["1.png", "b/1.png"]) == [5, None]
    assert matched({"x/9.png": 5}, ["1.png"]) == [None]
    with pytest.raises(ValueError, match="1.png could be a/1.png or b/1.png"):
        matched({"1.png": 5}, ["a/1.png", "b/1.png"])
    with pytest.raises(ValueError, match="two different rows for a/1.png"):
        matched({"a/1.png": 5, "./a\\1.png": 6}, ["a/1.png"])


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        ("0 1 2", True), ("1 2 3", True), ("0 1 2 3 4 5 6 7 8 9 10", True), ("cat dog", True), ("0 dog", True),
        ("00000 01000", False), ("0 2", False), ("2019 2020", False), ("00 01 02", False),
    ],
)  # fmt: skip
def test_numbered_folders_are_classes_if_they_count(folders: str, classes: bool) -> None:
    labels = folder_labels([f"in/{folder}/x.png" for folder in folders.split()])
    assert labels is not None and labels.class_names == tuple(folders.split())  # 10 comes after 9
    assert bool(why_not_classes(labels)) is not classes


def test_classes_without_images_leave_no_gap() -> None:
    assert without_gaps([2, 1, 2], []) == ({1: 0, 2: 1}, ("1", "2"))
    assert without_gaps([0, 2], ["cat", "dog", "cow", "hen"]) == ({0: 0, 2: 1}, ("cat", "cow"))
    assert without_gaps([0, 1], []) == ({0: 0, 1: 1}, ())
    assert without_gaps([1, 0], ["cat", "dog", "cow"]) == ({0: 0, 1: 1}, ("cat", "dog"))
    assert tally([1, 1, 0], ["cat", "dog"]) == "2: dog (2), cat (1)"
