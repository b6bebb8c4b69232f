"""Presets are the configurations that they always were: runs and papers name them."""

from __future__ import annotations

from dataclasses import fields

import pytest
from click.testing import CliRunner

from stylegan.cli.train import main
from stylegan.networks.registry import FAMILIES
from torch_utils.settings import differences, leaves, shown
from training.config import FLAGS, RunConfig
from training.presets import PRESETS, varying
from training.runs.check import check
from training.runs.resume import preset
from training.schedule import PerResolution

_ONE_GPU = "4:128,8:128,16:128,32:64,64:32,128:16,256:8,512:4,4"
_SMALL = {
    "model.mapping_layers": "2", "model.mapping_lr_mul": "0.1", "model.mbstd_group": "16",
    "growth.batch": "4:32,8:32,16", "loss.name": "relativistic", "ema_ramp": "0.05",
}  # fmt: skip
_FACES = {
    **_SMALL, "data.mirror": "True", "model.style_mixing": "0.5", "loss.r1_interval": "8", "ema_kimg": "8.0",
}  # fmt: skip
_PUBLISHED = {"data.mirror": "True", "growth.batch": _ONE_GPU}
_WGAN_GP = {"loss.name": "wgan-gp", "loss.r1_gamma": "0"}

# On one GPU, in the form in which settings are typed: all that differs from the defaults of the family and of a run.
WANTED = {
    "digits32": {
        **_SMALL, "data.cond": "True", "total_kimg": "36", "model.resolution": "32", "model.channels": "1",
        "model.num_classes": "10", "model.z_dim": "128", "model.w_dim": "128", "model.mapping_dim": "128",
        "model.fmap_base": "4096", "model.fmap_max": "128", "growth.final": "32", "growth.stable_kimg": "8:12,8",
        "growth.fade_kimg": "16:3,6", "growth.lr": "0.005", "loss.r1_gamma": "32:1,0.5", "loss.r2_gamma": "32:1,0.5",
        "loss.r1_interval": "4", "ema_kimg": "2.0", "tick_kimg": "1",
    },
    "faces64": {
        **_FACES, "total_kimg": "450", "model.resolution": "64", "model.fmap_base": "4096", "model.fmap_max": "128",
        "growth.final": "64", "growth.stable_kimg": "4:16,8:100,50", "growth.fade_kimg": "8:10,16:10,32:10,20",
        "growth.lr": "32:0.003,64:0.002,0.004", "growth.anneal_kimg": "110.0", "loss.r1_gamma": "64:0.3,1",
        "loss.r2_gamma": "64:0.3,1", "loss.aid_zoom": "2", "tick_kimg": "4:4,8:4,16:4,32:2,1",
    },
    "faces128": {
        **_FACES, "total_kimg": "650", "model.resolution": "128", "model.fmap_base": "8192", "model.fmap_max": "256",
        "growth.final": "128", "growth.stable_kimg": "4:16,8:100,60", "growth.fade_kimg": "8:10,16:10,32:20,30",
        "growth.lr": "64:0.002,128:0.002,0.003", "growth.anneal_kimg": "200.0", "loss.r1_gamma": "64:1.2,128:0.6,4",
        "loss.r2_gamma": "64:1.2,128:0.6,4", "tick_kimg": "4:8,8:8,16:4,32:2,1",
    },
    "ffhq256": {**_PUBLISHED, "model.resolution": "256", "growth.final": "256"},
    "ffhq512": {**_PUBLISHED, "model.resolution": "512", "growth.final": "512"},
    "ffhq1024": _PUBLISHED,
    "celebahq1024": {
        **_PUBLISHED, **_WGAN_GP, "growth.lr": "128:0.0015,256:0.002,512:0.002,1024:0.002,0.001",
    },
    "progan1024": {
        **_PUBLISHED, **_WGAN_GP, "total_kimg": "12000", "growth.initial": "4", "growth.lr": "1024:0.0015,0.001",
        "tick_kimg": "8:140,16:120,32:100,64:80,128:60,256:40,512:20,1024:10,160",
    },
}  # fmt: skip

# By number of GPUs, where the batch or the learning rate depend on it. 3 and 6 are not listed: those of the nearest
# smaller number, rounded so that all GPUs have equally many images, in whole groups where they have that many.
BATCHES = {
    "digits32": {2: "4:32,8:32,16", 3: "4:30,8:30,15", 4: "4:32,8:32,16", 6: "4:30,8:30,12", 8: "4:32,8:32,16"},
    "ffhq1024": {
        2: "4:256,8:256,16:128,32:64,64:32,128:16,256:8,8", 3: "4:252,8:252,16:120,32:60,64:24,128:12,256:6,6",
        4: "4:512,8:256,16:128,32:64,64:32,128:16,16", 6: "4:504,8:240,16:120,32:48,64:24,128:12,12",
        8: "4:512,8:256,16:128,32:64,64:32,32",
    },
}  # fmt: skip
PROGAN_LR = {
    2: "512:0.0015,1024:0.002,0.001", 3: "512:0.0015,1024:0.002,0.001", 4: "256:0.0015,512:0.002,1024:0.003,0.001",
    6: "256:0.0015,512:0.002,1024:0.003,0.001", 8: "128:0.0015,256:0.002,512:0.003,1024:0.003,0.001",
}  # fmt: skip


def differing(cfg: RunConfig) -> dict[str, str]:
    """The settings in which a preset differs from the defaults, as they are typed."""
    default = RunConfig(model=FAMILIES[cfg.model.family].config())
    found = differences(default, cfg)
    return {name: shown(value) for name, _, value in found if name not in ("preset", "gpus")}


@pytest.mark.parametrize("name", WANTED)
def test_a_preset_is_what_it_was_and_differs_from_the_defaults_in_nothing_else(name: str) -> None:
    cfg = preset(name, 1)
    assert differing(cfg) == WANTED[name]
    assert cfg.model.family == ("progan" if name == "progan1024" else "stylegan")


@pytest.mark.parametrize("gpus", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("name", WANTED)
def test_more_gpus_change_the_batch_and_the_learning_rate_as_they_did_and_nothing_else(name: str, gpus: int) -> None:
    one, cfg = preset(name, 1), preset(name, gpus)
    batch = BATCHES["digits32" if WANTED[name]["growth.batch"] != _ONE_GPU else "ffhq1024"][gpus]
    lr = PROGAN_LR[gpus] if name == "progan1024" else str(one.growth.lr)
    assert (str(cfg.growth.batch), str(cfg.growth.lr), cfg.gpus) == (batch, lr, gpus)
    assert {setting for setting, _, _ in differences(one, cfg)} <= {"gpus", "growth.batch", "growth.lr"}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 8, 16])
def test_every_preset_can_be_run_on_any_number_of_gpus(name: str, gpus: int) -> None:
    cfg = preset(name, gpus)
    check(cfg)
    assert (cfg.preset, cfg.gpus, cfg.growth.final) == (name, gpus, cfg.model.resolution)
    assert all(batch % gpus == 0 for batch in cfg.growth.batch.values())
    assert cfg.growth.phases(cfg.total_kimg)[-1].resolution == cfg.growth.final, "it reaches the full size"


@pytest.mark.parametrize("name, cap", [("ffhq1024", 0.003), ("celebahq1024", 0.002)])
def test_published_learning_rates(name: str, cap: float) -> None:
    lr = preset(name, 8).growth.lr
    assert [lr.at(r) for r in (8, 64, 128, 256, 512, 1024)] == [0.001, 0.001, 0.0015, 0.002, cap, cap]


def test_published_progan() -> None:
    one, eight = preset("progan1024", 1), preset("progan1024", 8)
    assert (one.model.family, one.growth.initial, one.total_kimg, one.loss.name) == ("progan", 4, 12000, "wgan-gp")
    assert [one.growth.lr.at(r) for r in (4, 512, 1024)] == [0.001, 0.001, 0.0015]
    assert [eight.growth.batch.at(r) for r in (4, 8, 16, 32, 64, 1024)] == [512, 256, 128, 64, 32, 32]
    assert one.loss.r1_gamma == PerResolution(0.0) and not one.model.style_dims()


def test_published_dcgan() -> None:
    """Its optimiser (section 4), and neither growth nor penalties."""
    for name in ("dcgan-mnist", "dcgan-faces64"):
        cfg = preset(name, 1)
        assert (cfg.optim.beta1, cfg.optim.beta2, cfg.growth.lr) == (0.5, 0.999, PerResolution(0.0002))
        assert cfg.growth.initial == cfg.growth.final and cfg.loss.name == "logistic"
        assert not any(cfg.loss.r1_gamma.values() + cfg.loss.r2_gamma.values())


def test_the_settings_of_published_networks_are_those_of_their_files() -> None:
    """Names and defaults, as they stand in the headers of snapshots and in the options of runs."""
    common = {
        "family": "stylegan", "resolution": 1024, "base": (4, 4), "channels": 3, "num_classes": 0, "z_dim": 512,
        "w_dim": 512, "mapping_layers": 8, "mapping_dim": 512, "mapping_lr_mul": 0.01, "mapping_activation": "lrelu",
        "normalize_z": True, "fmap_base": 16384, "fmap_max": 512, "d_fmap_max": None, "activation": "lrelu",
        "blur": (1, 2, 1), "styles": True, "const_input": True, "noise": True, "pixel_norm": False,
        "instance_norm": True, "style_mixing": 0.9, "mbstd_group": 4, "mbstd_features": 1,
    }  # fmt: skip
    progan = common | {
        "family": "progan", "mapping_layers": 0, "blur": (), "styles": False, "const_input": False, "noise": False,
        "pixel_norm": True, "instance_norm": False, "style_mixing": 0.0, "fused_scale": True,
    }  # fmt: skip
    for name, wanted in (("stylegan", common), ("progan", progan)):
        config = FAMILIES[name].config()
        assert {field.name: getattr(config, field.name) for field in fields(config)} == wanted


def test_help_says_of_a_setting_that_it_depends_on_the_preset_where_it_does() -> None:
    """And shows the default of all others. What only some families have depends on the preset as well, unless it is
    the same in all that have it.
    """
    flagged = {name for name, flag in FLAGS.items() if flag.kind is not None} - {"model.d_fmap_max"}
    assert varying() == flagged | {setting for name in PRESETS for setting in differing(preset(name, 1))}
    assert "snap" not in varying() and {"total_kimg", "growth.lr", "model.styles"} <= varying()
    assert varying() <= {setting for family in FAMILIES.values()
                         for setting, _ in leaves(RunConfig(model=family.config()))}  # fmt: skip
    shown = " ".join(CliRunner().invoke(main, ["--help"]).output.split())
    assert "of the discriminator, if it has fewer than the generator. [default: FMAP_MAX]" in shown
