"""Named starting points for `--cfg`. The published ones carry the published numbers; the small ones fit a CPU.

A preset names a network family and lists the settings, by dotted name, in which it differs from the defaults of the
family and of `RunConfig`. Sources: StyleGAN (Karras et al. 2019, FFHQ configuration F and its CelebA-HQ variant) and
ProGAN (Karras et al. 2018, the second set of presets). Their batch and learning rate depend on the number of GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training.config import FLAGS
from training.schedule import GrowthSchedule, PerResolution

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """about: a line for --help   family: of the networks   common: settings for any number of GPUs   by_gpus: others"""

    about: str
    family: str
    common: Settings
    by_gpus: Mapping[int, Settings] = field(default_factory=lambda: {1: {}})

    def settings(self, gpus: int) -> dict[str, Any]:
        """Those for `gpus` GPUs: of the nearest smaller count listed."""
        listed = max((n for n in self.by_gpus if n <= gpus), default=min(self.by_gpus))
        return {**self.common, **self.by_gpus[listed]}


# Batch over all GPUs, by GPU count; the learning rates of ProGAN differ as well.
_STYLEGAN_BATCH = {
    1: PerResolution(4, {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}),
    2: PerResolution(8, {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8}),
    4: PerResolution(16, {4: 512, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16}),
    8: PerResolution(32, {4: 512, 8: 256, 16: 128, 32: 64, 64: 32}),
}
_PROGAN_LR = {
    1: PerResolution(0.001, {1024: 0.0015}),
    2: PerResolution(0.001, {512: 0.0015, 1024: 0.002}),
    4: PerResolution(0.001, {256: 0.0015, 512: 0.002, 1024: 0.003}),
    8: PerResolution(0.001, {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}),
}
_BATCHES = {n: {"growth.batch": batch} for n, batch in _STYLEGAN_BATCH.items()}
_WGAN_GP = {"loss.name": "wgan-gp", "loss.r1_gamma": PerResolution(0.0)}
_LR = GrowthSchedule().lr


def _ffhq(resolution: int) -> Settings:
    return {"model.resolution": resolution, "growth.final": resolution, "data.mirror": True}


_CELEBAHQ = {
    **_ffhq(1024), **_WGAN_GP,
    "growth.lr": PerResolution(_LR.base, {res: min(rate, 0.002) for res, rate in _LR.table.items()}),
}  # fmt: skip

_PROGAN = {
    **_WGAN_GP, "growth.initial": 4, "data.mirror": True, "total_kimg": 12000,
    "tick_kimg": PerResolution(160, {8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 20, 1024: 10}),
}  # fmt: skip

# The small presets see a hundredth of the published number of images, so both networks learn two to five times
# faster, and the mapping network ten times more on top. That network is two layers deep, and most images go to the low
# resolutions, which cost little: there it is decided how much faces differ (docs/quality-log.md).
_DIGITS32: Settings = {
    "model.resolution": 32, "model.channels": 1, "model.num_classes": 10, "model.z_dim": 128, "model.w_dim": 128,
    "model.mapping_dim": 128, "model.mapping_layers": 2, "model.mapping_lr_mul": 0.1, "model.fmap_base": 4096,
    "model.fmap_max": 128, "model.mbstd_group": 16,
    "growth.initial": 8, "growth.final": 32, "growth.stable_kimg": PerResolution(8, {8: 12}),
    "growth.fade_kimg": PerResolution(6, {16: 3}), "growth.batch": PerResolution(16, {4: 32, 8: 32}),
    "growth.lr": PerResolution(0.005),
    "loss.name": "relativistic", "loss.r1_gamma": PerResolution(0.5, {32: 1.0}),
    "loss.r2_gamma": PerResolution(0.5, {32: 1.0}), "loss.r1_interval": 4,
    "data.cond": True, "total_kimg": 36, "ema_kimg": 2.0, "ema_ramp": 0.05, "tick_kimg": PerResolution(1),
}  # fmt: skip

_FACES64: Settings = {
    "model.resolution": 64, "model.mapping_layers": 2, "model.mapping_lr_mul": 0.1, "model.fmap_base": 4096,
    "model.fmap_max": 128, "model.style_mixing": 0.5, "model.mbstd_group": 16,
    "growth.initial": 8, "growth.final": 64, "growth.stable_kimg": PerResolution(50, {4: 16, 8: 100}),
    "growth.fade_kimg": PerResolution(20, {8: 10, 16: 10, 32: 10}),
    "growth.batch": PerResolution(16, {4: 32, 8: 32}), "growth.lr": PerResolution(0.004, {32: 0.003, 64: 0.002}),
    "growth.anneal_kimg": 110.0,
    "loss.name": "relativistic", "loss.r1_gamma": PerResolution(1.0, {64: 0.3}),
    "loss.r2_gamma": PerResolution(1.0, {64: 0.3}), "loss.r1_interval": 8, "loss.aid_zoom": 2,
    "data.mirror": True, "total_kimg": 450, "ema_kimg": 8.0, "ema_ramp": 0.05,
    "tick_kimg": PerResolution(1, {4: 4, 8: 4, 16: 4, 32: 2}),
}  # fmt: skip

_FACES128: Settings = {
    **_FACES64, "model.resolution": 128, "model.fmap_base": 8192, "model.fmap_max": 256,
    "growth.final": 128, "growth.stable_kimg": PerResolution(60, {4: 16, 8: 100}),
    "growth.fade_kimg": PerResolution(30, {8: 10, 16: 10, 32: 20}),
    "growth.lr": PerResolution(0.003, {64: 0.002, 128: 0.002}), "growth.anneal_kimg": 200.0,
    # The same as in faces64, where a penalty is a quarter as strong.
    "loss.r1_gamma": PerResolution(4.0, {64: 1.2, 128: 0.6}), "loss.r2_gamma": PerResolution(4.0, {64: 1.2, 128: 0.6}),
    "loss.aid_zoom": 1, "total_kimg": 650, "tick_kimg": PerResolution(1, {4: 8, 8: 8, 16: 4, 32: 2}),
}  # fmt: skip

# DCGAN with its own optimiser (section 4), and without penalties. The feature maps are a quarter of the paper's for
# digits and half of them for faces.
_DCGAN: Settings = {
    "loss.name": "logistic", "loss.r1_gamma": PerResolution(0.0), "optim.beta1": 0.5, "optim.beta2": 0.999,
    "growth.lr": PerResolution(0.0002), "growth.batch": PerResolution(64),
    "ema_kimg": 2.0, "ema_ramp": 0.05,
}  # fmt: skip

_DCGAN_MNIST: Settings = {
    **_DCGAN, "model.resolution": 32, "model.fmap_base": 1024, "model.fmap_max": 256, "model.channels": 1,
    "growth.initial": 32, "growth.final": 32, "total_kimg": 200, "tick_kimg": PerResolution(5),
}  # fmt: skip

_DCGAN_FACES64: Settings = {
    **_DCGAN, "model.resolution": 64, "model.fmap_base": 2048, "model.fmap_max": 512,
    "growth.initial": 64, "growth.final": 64, "data.mirror": True, "total_kimg": 400, "tick_kimg": PerResolution(5),
}  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    "digits32": Preset("handwritten digits; minutes on a CPU", "stylegan", _DIGITS32),
    "faces64": Preset("faces at 64x64; one to three hours on two CPU cores", "stylegan", _FACES64),
    "faces128": Preset("faces at 128x128; a night on a CPU, or one small GPU", "stylegan", _FACES128),
    "ffhq256": Preset("StyleGAN as published, up to 256x256", "stylegan", _ffhq(256), _BATCHES),
    "ffhq512": Preset("StyleGAN as published, up to 512x512", "stylegan", _ffhq(512), _BATCHES),
    "ffhq1024": Preset("StyleGAN as published, FFHQ", "stylegan", _ffhq(1024), _BATCHES),
    "celebahq1024": Preset("StyleGAN as published, CelebA-HQ", "stylegan", _CELEBAHQ, _BATCHES),
    "dcgan-mnist": Preset("DCGAN (2016) on digits, without growth; half an hour on a CPU", "dcgan", _DCGAN_MNIST),
    "dcgan-faces64": Preset("DCGAN (2016) on faces at 64x64; hours on a CPU", "dcgan", _DCGAN_FACES64),
    "progan1024": Preset("ProGAN as published, CelebA-HQ", "progan", _PROGAN,
                         {n: {**_BATCHES[n], "growth.lr": lr} for n, lr in _PROGAN_LR.items()}),
}  # fmt: skip


def varying() -> set[str]:
    """The settings (dotted names) that depend on the preset, or on its family and have no default of their own."""
    listed = {name for entry in PRESETS.values() for gpus in entry.by_gpus for name in entry.settings(gpus)}
    return listed | {name for name, flag in FLAGS.items() if flag.kind is not None and not flag.typed}
