"""RunConfig: JSON round trip, differences, cross-field rules, presets."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.networks.config import NetworkConfig
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import FAMILIES, config_from_json
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from torch_utils.settings import declared, differences, from_plain, leaves, replaced, to_plain
from training.attributes import Scope
from training.config import FLAGS, RunConfig
from training.presets import PRESETS
from training.runs.check import check
from training.runs.resume import preset
from training.schedule import PerResolution

FACES = preset("faces64", 1)


def from_json(data: Any) -> RunConfig:
    return from_plain(RunConfig, data, readers={NetworkConfig: config_from_json})


def through_json(cfg: RunConfig) -> RunConfig:
    return from_json(json.loads(json.dumps(to_plain(cfg))))


changes = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(),
        "desc": st.text(),
        "threads": st.none() | st.integers(),
        "ema_ramp": st.none() | st.floats(0, 1),
        "precision": st.sampled_from(["auto", "bf16", "fp32"]),
        "data.mirror": st.booleans(),
        "loss.name": st.sampled_from(["logistic", "wgan-gp", "relativistic", "hinge"]),
        "model.base": st.tuples(st.integers(1, 9), st.integers(1, 9)),
        "model.blur": st.sampled_from([(), (1, 2, 1), (1.0, 3.5)]),
        "growth.batch": st.builds(PerResolution, st.integers(), st.dictionaries(st.integers(), st.integers())),
        "tick_kimg": st.builds(PerResolution, st.floats(0, 9), st.dictionaries(st.integers(), st.floats(0, 9))),
    },
)


@given(changes, st.sampled_from(sorted(PRESETS)))
def test_json_round_trip_is_exact(changed, name):
    cfg = preset(name, 8)
    known = dict(leaves(cfg))  # of which some depend on the family of the network
    cfg = replaced(cfg, {setting: value for setting, value in changed.items() if setting in known})
    assert through_json(cfg) == cfg


def test_tables_are_readable_in_json():
    table = PerResolution(16, {16: 32, 8: 64})
    assert to_plain(replaced(FACES, {"growth.batch": table}))["growth"]["batch"] == {
        "base": 16,
        "table": {"8": 64, "16": 32},
    }


@pytest.mark.parametrize(
    "path, value, says",
    [
        (["sede"], 1, "'sede'"),
        (["loss", "gama"], 1, "'loss.gama'"),
        (["growth", "batch", "tabel"], {}, "'growth.batch.tabel'"),
        (["seed"], "seven", "'seed'"),
        (["seed"], True, "'seed'"),
        (["loss"], 3, "'loss'"),
        (["loss", "name"], "gan", "'loss.name'"),
        (["model", "base"], [4], "'model.base'"),
        (["model", "bias"], 3, "'model.bias'"),
        (["model", "family"], 3, "'model.family'"),
        (["model", "family"], "vae", "'vae'"),
        (["model"], 3, "'model'"),
        (["growth", "batch", "table"], {"8": 1.5}, "'growth.batch.table.8'"),
    ],
)
def test_json_that_does_not_fit_is_refused_by_name(path, value, says):
    data = to_plain(FACES)
    *parents, last = path
    group = data
    for key in parents:
        group = group[key]
    group[last] = value
    with pytest.raises(UserError, match=says):
        from_json(data)


def test_missing_settings_take_their_defaults():
    assert from_json({"seed": 3}) == replace(RunConfig(), seed=3)
    for family, model in (("progan", ProGANConfig(resolution=8)), ("dcgan", DCGANConfig(resolution=8))):
        assert from_json({"model": {"family": family, "resolution": 8}}) == RunConfig(model=model)
    assert from_json({"model": {"resolution": 8}}) == RunConfig(model=StyleGAN1Config(resolution=8))


def test_differences_name_what_changed_and_nothing_else():
    changed = replaced(FACES, {"loss.r1_gamma": PerResolution(5.0), "seed": 7})
    assert sorted(differences(FACES, changed)) == [
        ("loss.r1_gamma", FACES.loss.r1_gamma, PerResolution(5.0)),
        ("seed", 0, 7),
    ]
    assert differences(FACES, replace(FACES)) == []


def test_every_flag_is_declared_once_and_belongs_to_a_setting():
    found = list(declared(RunConfig, FLAGS))
    spellings = [s for d in found for s in d.flag.spellings]
    assert len(spellings) == len(set(spellings))
    settings = {name for f in FAMILIES.values() for name, _ in leaves(RunConfig(model=f.config()))}
    assert set(FLAGS) <= {d.name for d in found} <= settings
    shared = {name for name, _ in leaves(RunConfig())}
    assert {d.name for d in found if d.flag.kind is None} <= shared, "only some families have those with a kind"
    assert not {d.name for d in found if d.flag.kind is not None} & shared


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_are_a_run_that_can_be(family):
    model = FAMILIES[family].config()
    growth = replace(RunConfig().growth, initial=model.stages[0], final=model.resolution)
    check(RunConfig(model=model, growth=growth))


def test_an_unknown_preset_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="faces64"):
        preset("face", 1)


def bad(flag: str, **changed: object) -> object:
    return pytest.param(flag, {name.replace("__", "."): value for name, value in changed.items()}, id=str(changed)[:60])


@pytest.mark.parametrize(
    "flag, changed",
    [
        bad("--init-res 12", growth__initial=12),
        bad("--init-res 2", growth__initial=2),
        bad("--init-res 128", growth__initial=128),
        bad("--resolution", growth__final=32),
        bad("--batch 0", growth__batch=PerResolution(0)),
        bad("--batch 6 ", growth__batch=PerResolution(6), gpus=4),
        bad("--mbstd-group 4", growth__batch=PerResolution(6), model__mbstd_group=4),
        bad("--mbstd-group 3", growth__batch=PerResolution(16), batch_gpu=8, model__mbstd_group=3),
        bad("--batch-gpu 5", batch_gpu=5),
        bad("--batch-gpu 0", batch_gpu=0),
        bad("--lr 12:0.1,0.002", growth__lr=PerResolution(0.002, {12: 0.1})),
        bad("--lr -0.1", growth__lr=PerResolution(-0.1)),
        bad("--lod-kimg", growth__stable_kimg=PerResolution(1, {8: float("nan")})),
        bad("--kimg 0", total_kimg=0),
        bad("--ema-kimg inf", ema_kimg=float("inf")),
        bad("--gamma -1", loss__r1_gamma=PerResolution(-1)),
        bad(f"--gamma {FACES.loss.r1_gamma}", loss__name="wgan-gp"),
        bad("--r2-gamma 2", loss__name="wgan-gp", loss__r1_gamma=PerResolution(0.0), loss__r2_gamma=PerResolution(2)),
        bad("--r1-interval 0", loss__r1_interval=0),
        bad("--beta2 1", optim__beta2=1),
        bad("--style-mixing-prob must be from 0 to 1, got 2", model__style_mixing=2),
        bad("--lr-end 0", growth__lr_end=0.0),
        bad("--cond 1", data__cond=True),
        bad("--cond 0", model__num_classes=10),
        bad("5 channels", model__channels=5),
        bad("0x4", model__base=(0, 4)),
        bad("--map-depth 0", model__mapping_layers=0, model__w_dim=64),
        bad("'progan'", model__family="progan"),
        bad("--gpus 0", gpus=0),
        bad("--snap 0", snap=0),
        bad("--seed -1", seed=-1),
        bad("--seed 18446744073709551616", seed=2**64),
        bad("--threads 0", threads=0),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_named_with_its_value(flag, changed):
    with pytest.raises(UserError) as error:
        check(replaced(FACES, changed))
    assert flag in str(error.value)
    assert "\n" not in str(error.value)


@given(st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 2, 3, 6]), st.integers(1, 64), st.none() | st.integers(1, 64))
def test_batches_that_pass_can_be_worked_off_in_whole_groups(gpus, group, batch, batch_gpu):
    changed = {"gpus": gpus, "growth.batch": PerResolution(batch), "batch_gpu": batch_gpu, "model.mbstd_group": group}
    try:
        check(replaced(FACES, changed))
    except UserError:
        return
    part = min(batch // gpus, batch_gpu or batch)
    assert batch % gpus == 0 and batch // gpus % part == 0 and part % min(group, part) == 0


def test_how_many_at_once_may_be_left_to_the_machine():
    (flag,) = (found.flag for found in declared(RunConfig, FLAGS) if found.name == "batch_gpu")
    assert flag.parse is not None and (flag.parse("auto"), flag.parse("8")) == (None, 8)
    with pytest.raises(UserError, match="or auto"):
        flag.parse("most")


def test_progan_with_classes_and_other_sizes_is_accepted():
    progan = preset("progan1024", 1)
    model = replace(progan.model, resolution=64, num_classes=10, base=(4, 6), channels=1)
    check(replaced(progan, {"model": model, "growth.final": 64, "data.cond": True}))
    assert model.ws_dim == model.w_dim == 522


@pytest.mark.parametrize("name, value", [
    ("styles", True), ("const_input", True), ("noise", True), ("pixel_norm", False), ("instance_norm", True),
    ("style_mixing", 0.5), ("mapping_layers", 2), ("mapping_dim", 64), ("blur", (1, 2, 1)),
])  # fmt: skip
def test_progan_is_refused_what_would_make_it_another_network(name, value):
    with pytest.raises(UserError, match="^ProGAN has no styles"):
        check(replaced(preset("progan1024", 1), {f"model.{name}": value}))


def test_a_setting_without_a_default_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="setting 'outer.names' is missing"):
        from_plain(Scope, {}, "outer")
