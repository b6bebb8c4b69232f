"""A classifier learns what tells images apart, and says how well."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.editing.attribute_table import Table
from stylegan.editing.settings import ATTRIBUTES, ClassifierSettings
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from training import attributes
from training.attributes import (
    FORMAT,
    AttributeClassifier,
    Classifier,
    Scope,
    held_out_accuracy,
    learn,
    load_classifier,
    loss_of,
    rows_of,
    save_classifier,
    size_of,
    standardised,
)
from training.data.archive import Archive, ArchiveWriter

SCOPE = Scope(("bright", "tilt"), (False, True), (0.0, 10.0), (1.0, 5.0), 1, (16, 16), "blotches")
SETTINGS = ClassifierSettings(held_out=60, epochs=8, batch=16, lr=0.01, resolution=16)
CPU = torch.device("cpu")
GOOD = {"names": ["bright", "tilt"], "quantities": [False, True], "centres": [0.0, 1.0], "spreads": [1.0, 2.0],
        "channels": 1, "size": [16, 16], "data": "x", "accuracy": [0.5, 0.5]}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, Table]:
    """Noise of 16x16, half of it with a bright left side, all with a slope from top to bottom; some rows unknown."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("attributes") / "noise.zip"
    bright, tilt = rng.integers(0, 2, 300), rng.uniform(-30, 30, 300)
    with ArchiveWriter(path) as writer:
        for left, slope in zip(bright, tilt):
            image = 110 + rng.normal(0, 20, (16, 16)) + slope * np.linspace(-1, 1, 16)[:, None]
            image[:, :5] += 70 * left
            writer.add(image.clip(0, 255).astype(np.uint8)[:, :, None])
    values = np.stack([bright.astype(float), tilt], axis=1)
    values[::10, 0] = np.nan
    archive = Archive.open(path)
    return archive, Table(tuple(archive.names[:290]), ("bright", "tilt"), values[:290], (False, True))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("STYLEGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def taught(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_CACHE", str(data[0].path.parent / "cache"))
        return learn(*data, SETTINGS, CPU)


def test_it_learns_and_its_accuracy_is_that_on_pictures_it_never_saw(data, taught):
    assert taught.scope.names == ("bright", "tilt") and min(taught.scope.accuracy) > 0.85
    archive, table = data
    last = torch.stack([torch.from_numpy(archive.read(i)).permute(2, 0, 1) for i in range(240, 300)])
    found = taught.values(last / 127.5 - 1)
    truth = torch.from_numpy(rows_of(archive, table)[240:])
    np.testing.assert_allclose(held_out_accuracy(found, truth, taught.scope), taught.scope.accuracy, atol=0.02)
    known = ~truth[:, 1].isnan()
    assert np.corrcoef(found[known, 1], truth[known, 1])[0, 1] > 0.8 and found[:, 1].std() > 8  # in its own units


def test_the_same_settings_teach_the_same(data):
    one, other = (learn(*data, replace(SETTINGS, epochs=1), CPU).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_comes_back_from_its_file(taught, tmp_path):
    path = tmp_path / f"a{ATTRIBUTES}"
    save_classifier(path, taught)
    found, images = load_classifier(path), torch.rand(3, 1, 16, 16)
    assert found.scope == taught.scope and torch.equal(found.values(images), taught.values(images))
    assert found.values(torch.rand(2, 1, 32, 32)).shape == (2, 2)
    with pytest.raises(UserError, match="1 channels, these have 3"):
        found.values(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(("changes", "says"), [
    ({"format": "else"}, "holds no classifier"), ({"scope": None}, "cannot be read"),
    ({"scope": GOOD | {"names": 3}}, "names"), ({"head.bias": torch.zeros(5)}, "cannot be read"),
])  # fmt: skip
def test_a_file_of_something_else_is_one_clear_line(taught, tmp_path, changes, says):
    path = tmp_path / f"a{ATTRIBUTES}"
    save_classifier(path, taught)
    tensors, header = load_tensors(path)
    for name, value in changes.items():
        (tensors if name in tensors else header)[name] = value
    save_tensors(path, tensors, header)
    with pytest.raises(UserError, match=says) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="must end in"):
        save_classifier(Path("a.safetensors"), taught)


def with_scope(path: Path, taught: AttributeClassifier, scope: object, **changes: torch.Tensor) -> Path:
    """A classifier's file with another scope and other weights."""
    save_tensors(path, {**taught.network.state_dict(), **changes}, {"format": FORMAT, "scope": scope})
    return path


@pytest.mark.parametrize(("changes", "says"), [
    ({"size": [0, 16]}, "images of 16x0 pixels"), ({"size": [-4, 16]}, "images of 16x-4 pixels"),
    ({"size": [10**6, 10**6]}, "images of 1000000x1000000 pixels"), ({"size": [10**400, 1]}, "pixels, more or fewer"),
    ({"size": [4096, 4096]}, "images of 4096x4096 pixels"), ({"size": [16]}, "size"), ({"size": "16"}, "size"),
    ({"channels": 10**9}, "1000000000 channels, not 1, 3 or 4"), ({"channels": 0}, "0 channels"),
    ({"channels": -1}, "-1 channels"), ({"channels": 3}, "of another shape"),
    ({"quantities": []}, "2 attributes but 0 quantities"), ({"spreads": []}, "2 attributes but 0 spreads"),
    ({"centres": [1.0]}, "2 attributes but 1 centres"), ({"accuracy": [1.0]}, "2 attributes but 1 accuracies"),
    ({"spreads": [1.0, 0.0]}, "spreads are not above 0"), ({"spreads": [1.0, float("nan")]}, "spreads are not above 0"),
    ({"centres": [float("inf"), 0.0]}, "centres are not finite"), ({"names": []}, "no attributes"),
    ({"names": ["a", "\x1b[2J"]}, "without a name"), ({"names": ["a", "a"]}, "have one name"),
    ({"names": ["a", " "]}, "without a name"), ({"names": [str(i) for i in range(2000)]}, "2000 attributes but 2"),
])  # fmt: skip
def test_a_scope_that_cannot_be_is_one_line(taught, tmp_path, changes, says):
    path = with_scope(tmp_path / f"a{ATTRIBUTES}", taught, GOOD | changes)
    with pytest.raises(UserError, match=rf"^the classifier in .*{re.escape(says)}") as caught:
        load_classifier(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400 + len(str(path))


def test_a_file_that_claims_more_attributes_than_it_has_weights_for_takes_no_memory(taught, tmp_path, monkeypatch):
    count = 200_000
    many = GOOD | {"names": [str(i) for i in range(count)], "accuracy": []}
    many |= {"quantities": [True] * count, "centres": [0.0] * count, "spreads": [1.0] * count}
    built: list[torch.device] = []
    monkeypatch.setattr(Classifier, "forward", None)
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: built.append(layer.weight.device))
    with pytest.raises(UserError, match="head.* of another shape"):
        load_classifier(with_scope(tmp_path / f"a{ATTRIBUTES}", taught, many))
    assert {device.type for device in built} == {"meta"}


def test_weights_that_are_no_numbers(taught, tmp_path):
    path = with_scope(tmp_path / f"a{ATTRIBUTES}", taught, GOOD, **{"head.bias": torch.tensor([0.0, torch.nan])})
    with pytest.raises(UserError, match="weights are not finite"):
        load_classifier(path)


def test_any_change_of_a_scope_is_taken_or_refused_in_a_line(taught, tmp_path):
    """Every part of the scope replaced by every kind of value, left out, and another part added."""
    values: list[object] = [
        None,
        True,
        0,
        -1,
        10**400,
        1e300,
        float("nan"),
        "",
        "a",
        [],
        [None],
        [[1]],
        {},
        {"a": 1},
        [1e9],
    ]
    path = tmp_path / f"a{ATTRIBUTES}"
    scopes: list[object] = [*values, GOOD | {"more": 1}]
    scopes += [GOOD | {name: value} for name in GOOD for value in values]
    scopes += [{other: value for other, value in GOOD.items() if other != name} for name in GOOD]
    for scope in scopes:
        with_scope(path, taught, scope)
        try:
            found = load_classifier(path)
        except UserError as error:
            assert str(error).isprintable()
        else:
            assert found.values(torch.rand(2, 1, 16, 16)).isfinite().all()


def test_large_images_are_looked_at_some_at_a_time(taught, monkeypatch):
    images = torch.rand(10, 1, 16, 16)
    whole, seen = taught.scores(images), []
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, part: seen.append(len(part)) or forward(self, part))
    monkeypatch.setattr(attributes, "PIXELS_AT_ONCE", 4 * 16 * 16)
    torch.testing.assert_close(taught.scores(images), whole)
    assert seen == [4, 4, 2]


def test_what_is_not_known_does_not_count():
    scores = torch.tensor([[0.3, 0.1], [5.0, 7.0]], requires_grad=True)
    goals = standardised(torch.tensor([[1.0, 15.0], [torch.nan, torch.nan]]), SCOPE)
    loss = loss_of(scores, goals, SCOPE)
    loss.backward()
    assert scores.grad is not None and not scores.grad[1].any() and scores.grad[0].all()
    expected = (torch.nn.functional.softplus(torch.tensor(-0.3)) + 0.5 * (0.1 - 1.0) ** 2) / 2
    torch.testing.assert_close(loss, expected)


def test_balanced_accuracy_gives_guessing_a_half():
    truth = torch.tensor([[1.0, 20.0], [0.0, 0.0], [0.0, 0.0], [0.0, torch.nan]])
    always_no = torch.tensor([[0.1, 30.0]] * 4)
    assert held_out_accuracy(always_no, truth, SCOPE) == (0.5, 0.5)
    assert np.isnan(held_out_accuracy(always_no[:1], truth[:1], SCOPE)).all()


@pytest.mark.parametrize(("changes", "says"), [
    ({"keys": ("eva.png",)}, "1 of 1 images that .* lacks, such as 'eva.png'"), ({"ones": True}, "a single class"),
    ({"held_out": 299}, "--held-out 299: of 300"), ({"held_out": 0}, "--held-out 0"), ({"flat": True}, "same of all"),
])  # fmt: skip
def test_tables_that_cannot_be_learnt(data, changes, says):
    archive, table = data
    values = table.values.copy()
    if "ones" in changes:
        values[:, 0] = 1
    if "flat" in changes:
        values[:, 1] = 3
    table = replace(table, values=values)
    if "keys" in changes:
        table = replace(table, keys=changes["keys"], values=values[:1])
    with pytest.raises(UserError, match=says):
        learn(archive, table, replace(SETTINGS, held_out=changes.get("held_out", 60)), CPU)


def test_sizes_are_halved_as_far_as_asked(data):
    assert size_of(data[0], 16) == size_of(data[0], 100) == (16, 16) and size_of(data[0], 9) == (8, 8)
