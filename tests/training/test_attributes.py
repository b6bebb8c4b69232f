"""A classifier learns what tells images apart, and says how well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan.editing.attribute_table import Table
from stylegan.editing.settings import ATTRIBUTES, ClassifierSettings
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError
from training.attributes import (
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
    ({"scope": {"names": 3}}, "names"), ({"head.bias": torch.zeros(5)}, "cannot be read"),
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
