"""From typed settings and facts about the data to a whole configuration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from stylegan.cli import train
from torch_utils.errors import UserError
from torch_utils.settings import leaves, replaced
from training.data.dataset import subset_of
from training.runs.check import check
from training.runs.resume import DataFacts, preset, resolve, resumed, same_data
from training.runs.run_dir import STATE, write_options
from training.schedule import PerResolution

FACES = DataFacts("faces", count=100, height=64, width=64, channels=3, num_classes=0, content_hash="abc")
GAMMA, NONE = preset("faces64", 1).loss.r1_gamma, PerResolution(0.0)
DIGITS = DataFacts("digits", count=100, height=32, width=32, channels=1, num_classes=10, content_hash="abc")


def test_what_is_typed_wins_over_the_preset_and_the_rest_is_the_preset():
    typed = {
        "preset": "faces64",
        "loss.r1_gamma": PerResolution(3.0),
        "growth.batch": PerResolution(8),
        "data.mirror": False,
    }
    cfg, plain = resolve(typed, FACES), preset("faces64", 1)
    changed = {name for (name, a), (_, b) in zip(leaves(cfg), leaves(plain)) if a != b}
    assert changed == {"loss.r1_gamma", "growth.batch", "data.mirror", "data.content_hash"}
    assert (cfg.loss.r1_gamma, cfg.growth.batch, cfg.data.mirror) == (PerResolution(3.0), PerResolution(8), False)


def test_the_network_takes_the_shape_of_the_data():
    cfg = resolve({"preset": "faces64"}, replace(FACES, height=64, width=96, channels=4))
    assert (cfg.model.base, cfg.model.channels, cfg.model.size(64)) == ((4, 6), 4, (64, 96))


def test_larger_data_are_reduced_to_the_preset():
    cfg = resolve({"preset": "faces64"}, replace(FACES, height=256, width=384))
    assert (cfg.model.resolution, cfg.growth.final, cfg.model.size(64)) == (64, 64, (64, 96))


def test_a_resolution_that_is_typed_is_the_end_of_growth():
    cfg = resolve({"preset": "faces64", "model.resolution": 16}, FACES)
    assert (cfg.model.resolution, cfg.growth.final) == (16, 16)


@pytest.mark.parametrize("facts, name", [
    (DIGITS, "digits32"), (FACES, "faces64"), (replace(FACES, height=128, width=192), "faces128"),
    (replace(FACES, height=512, width=512), "ffhq512"), (replace(FACES, height=2048, width=2048), "ffhq1024"),
    (replace(FACES, height=16, width=16), "digits32"),
])  # fmt: skip
def test_without_a_preset_the_data_choose_and_it_fits_them(facts, name):
    cfg = resolve({}, facts)
    assert cfg.preset == name
    assert cfg.model.resolution <= facts.resolution
    assert cfg.model.num_classes == (facts.num_classes if cfg.data.cond else 0)


def test_classes_come_from_the_data_where_they_are_wanted():
    assert resolve({"preset": "digits32"}, DIGITS).model.num_classes == 10
    assert resolve({"preset": "digits32", "data.cond": False}, DIGITS).model.num_classes == 0
    assert resolve({"preset": "faces64", "data.cond": True}, replace(FACES, num_classes=7)).model.num_classes == 7


@pytest.mark.parametrize(
    "name, r1, r2", [("wgan-gp", NONE, NONE), ("relativistic", GAMMA, GAMMA), ("hinge", GAMMA, NONE)]
)
def test_another_loss_brings_its_own_penalties(name, r1, r2):
    loss = resolve({"preset": "faces64", "loss.name": name}, FACES).loss
    assert (loss.r1_gamma, loss.r2_gamma) == (r1, r2)


def test_typed_penalties_stay():
    typed = {
        "preset": "faces64",
        "loss.name": "relativistic",
        "loss.r1_gamma": PerResolution(2.0),
        "loss.r2_gamma": PerResolution(0.5),
    }
    loss = resolve(typed, FACES).loss
    assert (loss.r1_gamma, loss.r2_gamma) == (PerResolution(2.0), PerResolution(0.5))


@pytest.mark.parametrize("classes", [0, 10])
def test_progan_takes_classes_beside_z(classes):
    facts = DataFacts("hq", 9, 1024, 1024, 3, classes, "")
    cfg = resolve({"preset": "progan1024", "data.cond": classes > 0}, facts)
    assert cfg.model.w_dim == cfg.model.z_dim + classes
    check(cfg)


@pytest.mark.parametrize("typed, facts, says", [
    ({"preset": "faces128"}, FACES, "--resolution 64"),
    ({"preset": "faces64"}, replace(FACES, height=100, width=100), "100x100 .* --resolution 96"),
    ({"preset": "faces64", "data.cond": True}, FACES, "--cond 1"),
    ({"preset": "digits32"}, replace(DIGITS, num_classes=0), "--cond 0"),
    ({"preset": "nope"}, FACES, "--cfg nope"),
    ({"preset": "faces64"}, replace(FACES, height=63, width=64), "64x63"),
    ({"gpus": 0}, FACES, "--gpus 0"),
    ({"data.subset": 101}, FACES, "--subset 101"),
])  # fmt: skip
def test_what_does_not_go_together_is_said(typed, facts, says):
    with pytest.raises(UserError, match=says):
        resolve(typed, facts)


@pytest.mark.parametrize("typed, says", [
    ({"model.styles": False}, "--styles is not a setting of DCGAN, the network of --cfg dcgan-mnist; leave it out"),
    ({"model.w_dim": 64}, "--w-dim is not a setting of DCGAN"),
    ({"growth.initial": 8}, "--init-res 8: DCGAN does not grow from there; leave it out"),
    ({"preset": "progan1024", "model.w_dim": 64}, "--w-dim 64 is not possible with ProGAN, where it is 512"),
    ({"preset": "progan1024", "model.styles": True}, "ProGAN has no styles"),
])  # fmt: skip
def test_what_a_network_does_not_have_is_one_clear_line(typed, says):
    typed = {"preset": "dcgan-mnist", "model.resolution": 32, **typed}
    with pytest.raises(UserError) as refusal:
        resolve(typed, DIGITS)
    assert str(refusal.value).startswith(says) and "\n" not in str(refusal.value)


def test_what_a_network_does_not_have_ends_the_command_with_exit_code_2(new_images, tmp_path):
    asked = ["--outdir", str(tmp_path / "runs"), "--data", str(new_images(size=(32, 32))), "--device", "cpu"]
    stored = resolve({"preset": "dcgan-mnist", "data.path": asked[3]}, replace(DIGITS, num_classes=0))
    write_options(tmp_path, stored)
    (tmp_path / STATE).touch()
    for arguments in ([*asked, "--cfg", "dcgan-mnist"], ["--resume", str(tmp_path)]):
        outcome = CliRunner().invoke(train.main, [*arguments, "--styles", "0"])
        assert outcome.exit_code == 2 and not (tmp_path / "runs").exists()
        assert outcome.stderr.splitlines()[-1].startswith("Error: --styles is not a setting of DCGAN")


def test_what_the_network_derives_may_be_typed_as_it_is():
    cfg = resolve({"preset": "progan1024", "model.resolution": 32, "model.w_dim": 512, "data.cond": False}, DIGITS)
    assert cfg.model.w_dim == 512


@pytest.mark.parametrize("name, resolution, initial", [("dcgan-mnist", 16, 16), ("dcgan-mnist", 32, 32),
                                                       ("digits32", 16, 8), ("progan1024", 32, 4)])  # fmt: skip
def test_a_network_that_does_not_grow_begins_at_its_full_size(name, resolution, initial):
    cfg = resolve({"preset": name, "model.resolution": resolution}, DIGITS)
    assert (cfg.growth.initial, cfg.growth.final) == (initial, resolution)


STORED = resolve({"preset": "faces64", "data.path": "/data/faces.zip"}, FACES)


def unasked() -> int:
    raise AssertionError("what may change at any time does not depend on how far a run has got")


def test_a_run_resumes_as_it_is():
    assert resumed(STORED, {}, unasked) == STORED
    assert resumed(STORED, {"preset": "faces64", "loss.r1_gamma": GAMMA}, unasked) == STORED, (
        "repeating a setting is no conflict"
    )


@pytest.mark.parametrize("name, value", [("device", "cpu"), ("threads", 3), ("snap", 7), ("data.path", "/moved.zip")])
def test_where_a_run_goes_on_may_change(name, value):
    changed: dict[str, Any] = dict(leaves(resumed(STORED, {name: value}, unasked)))
    assert changed == dict(leaves(STORED)) | {name: value}


def test_a_run_may_be_prolonged():
    changed: dict[str, Any] = dict(leaves(resumed(STORED, {"total_kimg": STORED.total_kimg + 1}, unasked)))
    assert changed == dict(leaves(STORED)) | {"total_kimg": STORED.total_kimg + 1}


@pytest.mark.parametrize("name, value, flag", [("total_kimg", float("inf"), "--kimg inf"), ("snap", 0, "--snap 0")])
def test_what_may_change_must_still_be_possible(name, value, flag):
    with pytest.raises(UserError, match=flag):
        resumed(STORED, {name: value}, unasked)


@pytest.mark.parametrize("name, value, both", [
    ("loss.r1_gamma", PerResolution(5.0), ["--gamma", "5", str(GAMMA)]),
    ("preset", "digits32", ["--cfg", "digits32", "faces64"]),
    ("growth.batch", PerResolution(4), ["--batch", "4", str(STORED.growth.batch)]),
    ("seed", 1, ["--seed", "1", "0"]),
])  # fmt: skip
def test_a_contradiction_names_both_values(name, value, both):
    with pytest.raises(UserError) as error:
        resumed(STORED, {name: value}, unasked)
    assert all(part in str(error.value) for part in both)


def test_a_run_may_be_shortened_to_where_it_is():
    assert resumed(STORED, {"total_kimg": 9.0}, lambda: 9000) == replace(STORED, total_kimg=9.0)
    with pytest.raises(UserError, match=f"--kimg 9 is over: the run is at 9.1 of {STORED.total_kimg:g} kimg.* more"):
        resumed(STORED, {"total_kimg": 9.0}, lambda: 9100)


def test_how_the_learning_rate_falls_may_change_until_it_does():
    level = replaced(STORED, {"growth.anneal_kimg": 0.0})
    alone = round(level.growth.anneal_start)
    typed = {"growth.anneal_from": alone / 1000 + 7, "growth.anneal_kimg": 3.0, "growth.lr_end": 0.5}
    for nimg in (0, alone, alone + 7000):
        changed = resumed(level, typed, lambda nimg=nimg: nimg)
        assert changed == replaced(level, typed)
        assert all(changed.growth.at(n) == level.growth.at(n) for n in range(0, nimg + 1, 1000)), "the past stays"
        assert changed.growth.at(alone + 8500).lr < level.growth.at(alone + 8500).lr
    with pytest.raises(UserError, match=f"is at {alone / 1000 + 7.1:.1f} kimg.* --anneal-from {alone / 1000 + 7.1:g},"):
        resumed(level, typed, lambda: alone + 7100)
    with pytest.raises(UserError, match="--lr-end 0.5 comes too late.* since"):
        resumed(STORED, {"growth.lr_end": 0.5}, lambda: alone + 1)


def test_names_of_classes_come_from_the_data_also_when_an_older_run_goes_on():
    named = replace(DIGITS, class_names=("zero", "one"))
    assert resolve({"preset": "digits32", "data.cond": True}, named).data.class_names == ("zero", "one")
    assert resolve({"preset": "faces64", "data.cond": False}, FACES).data.class_names == ()
    older = resolve({"preset": "digits32", "data.cond": True}, DIGITS)
    assert older.data.class_names == () and same_data(older, named).data.class_names == ("zero", "one")
    with pytest.raises(UserError, match="number of classes is 10 in runs/7 and 3 in .*restore it"):
        same_data(older, replace(DIGITS, num_classes=3), Path("runs/7"))


def test_classes_without_images_are_known_also_in_a_subset():
    labels = np.array([1, 1, 2, 2, 2, 4] + [1] * 94)
    facts = replace(DIGITS, num_classes=5, labels=labels)
    cfg = resolve({"preset": "digits32", "data.cond": True}, facts)
    assert cfg.data.empty_classes == (0, 3) and "Without a single image: 0, 3;" in facts.about(cfg)
    shown = set(labels[subset_of(100, 3, 5)].tolist())
    few = resolve({"preset": "digits32", "data.cond": True, "data.subset": 3, "seed": 5}, facts)
    assert set(few.data.empty_classes) == set(range(5)) - shown
    assert resolve({"preset": "digits32", "data.cond": False}, facts).data.empty_classes == ()


def test_whether_labels_are_used_is_said_each_way():
    digits, faces = replace(DIGITS, count=5000), replace(FACES, count=5000)
    learned, ignored = (resolve({"preset": "digits32", "data.cond": cond}, digits) for cond in (True, False))
    assert digits.about(learned) == ("digits: 5000 images of 32x32; the classes are learned (--cond 0 ignores them)")
    assert digits.about(ignored) == "digits: 5000 images of 32x32; the classes are not used (--cond learns them)"
    plain = resolve({"preset": "faces64", "data.subset": 2000}, faces)
    assert faces.about(plain) == "faces: 5000 images of 64x64, of which 2,000 are used (--subset)"
    sorted_by_hand = replace(faces, folders=("cat", "dog"))
    assert "sub-folders cat, dog become classes with dataset_tool.py --labels folders" in sorted_by_hand.about(plain)


@pytest.mark.parametrize("typed, few", [({}, True), ({"loss.diffaugment": ("color",)}, False)])
def test_few_images_come_with_what_helps(typed, few):
    for facts, subset in ((FACES, None), (replace(FACES, count=5000), 999)):
        chosen = {"data.subset": subset} if subset else {}
        cfg = resolve({"preset": "faces64"} | chosen | typed, facts)
        assert ("are few and may be memorised: --diffaugment" in facts.about(cfg)) == few


def test_other_data_are_refused_and_moved_data_are_not():
    assert same_data(STORED, replace(FACES, name="elsewhere")) == STORED
    with pytest.raises(UserError, match="changed .*--resume runs/7 --data NEWPATH.*--init-from runs/7"):
        same_data(STORED, replace(FACES, content_hash="def"), Path("runs/7"))
    earlier = replace(FACES, content_hash="def", is_what=lambda content_hash: content_hash == "abc")
    assert same_data(STORED, earlier).data.content_hash == "def"
