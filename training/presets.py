"""Named starting points for `--cfg`. The published ones carry the published numbers; the small ones fit a CPU.

Sources: StyleGAN (Karras et al. 2019, FFHQ configuration F and its CelebA-HQ variant) and ProGAN (Karras et al. 2018,
the second set of presets). Their batch and learning rate depend on the number of GPUs, which is why a preset is one
configuration per GPU count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stylegan.networks.base import ModelConfig, progan_config
from torch_utils.errors import UserError
from torch_utils.settings import differences
from training.config import DataConfig, LossConfig, RunConfig
from training.schedule import GrowthSchedule, PerResolution

_WGAN_GP = LossConfig(name="wgan-gp", r1_gamma=PerResolution(0.0))

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
_PROGAN_TICK: PerResolution[float] = PerResolution(
    160, {8: 140, 16: 120, 32: 100, 64: 80, 128: 60, 256: 40, 512: 20, 1024: 10}
)


@dataclass(frozen=True)
class Preset:
    """A line for --help, and one configuration per number of GPUs."""

    about: str
    by_gpus: Mapping[int, RunConfig]

    def config(self, gpus: int) -> RunConfig:
        """The configuration for `gpus` GPUs: of the nearest smaller count listed, its batches rounded to go round."""
        listed = self.by_gpus[max((n for n in self.by_gpus if n <= gpus), default=min(self.by_gpus))]
        batch = listed.growth.batch
        base, *sizes = (_rounded(size, gpus, listed.model.mbstd_group) for size in batch.values())
        divisible = PerResolution(base, dict(zip(batch.table, sizes, strict=True)))
        return replace(listed, gpus=gpus, growth=replace(listed.growth, batch=divisible))


def _rounded(batch: int, gpus: int, group: int) -> int:
    """`batch` rounded down so that every GPU has equally many images, in whole groups where it has that many."""
    unit = gpus * group if batch >= gpus * group else gpus
    return max(unit, batch - batch % unit)


def _ffhq(resolution: int, gpus: int) -> RunConfig:
    return RunConfig(
        preset=f"ffhq{resolution}",
        model=ModelConfig(resolution=resolution),
        growth=GrowthSchedule(final=resolution, batch=_STYLEGAN_BATCH[gpus]),
        data=DataConfig(mirror=True),
        gpus=gpus,
    )


def _celebahq(gpus: int) -> RunConfig:
    ffhq = _ffhq(1024, gpus)
    lr = ffhq.growth.lr
    capped = PerResolution(lr.base, {res: min(rate, 0.002) for res, rate in lr.table.items()})
    return replace(ffhq, preset="celebahq1024", growth=replace(ffhq.growth, lr=capped), loss=_WGAN_GP)


def _progan(gpus: int) -> RunConfig:
    return RunConfig(
        preset="progan1024",
        model=progan_config(),
        growth=GrowthSchedule(initial=4, batch=_STYLEGAN_BATCH[gpus], lr=_PROGAN_LR[gpus]),
        loss=_WGAN_GP,
        data=DataConfig(mirror=True),
        total_kimg=12000,
        tick_kimg=_PROGAN_TICK,
        gpus=gpus,
    )


# The small presets see a hundredth of the published number of images, so both networks learn two to five times
# faster, and the mapping network ten times more on top. That network is two layers deep, and most images go to the low
# resolutions, which cost little: there it is decided how much faces differ (docs/quality-log.md).
_DIGITS32 = RunConfig(
    preset="digits32",
    model=ModelConfig(
        resolution=32, channels=1, num_classes=10, z_dim=128, w_dim=128, mapping_dim=128, mapping_layers=2,
        mapping_lr_mul=0.1, fmap_base=4096, fmap_max=128, mbstd_group=16,
    ),
    growth=GrowthSchedule(
        initial=8,
        final=32,
        stable_kimg=PerResolution(8, {8: 12}),
        fade_kimg=PerResolution(6, {16: 3}),
        batch=PerResolution(16, {4: 32, 8: 32}),
        lr=PerResolution(0.005),
    ),
    loss=LossConfig(
        name="relativistic", r1_gamma=PerResolution(0.5, {32: 1.0}), r2_gamma=PerResolution(0.5, {32: 1.0}),
        r1_interval=4,
    ),
    data=DataConfig(cond=True),
    total_kimg=36,
    ema_kimg=2.0,
    ema_ramp=0.05,
    tick_kimg=PerResolution(1),
    snap=10,
)  # fmt: skip

_FACES64 = RunConfig(
    preset="faces64",
    model=ModelConfig(
        resolution=64,
        mapping_layers=2,
        mapping_lr_mul=0.1,
        fmap_base=4096,
        fmap_max=128,
        style_mixing=0.5,
        mbstd_group=16,
    ),
    growth=GrowthSchedule(
        initial=8,
        final=64,
        stable_kimg=PerResolution(50, {4: 16, 8: 100}),
        fade_kimg=PerResolution(20, {8: 10, 16: 10, 32: 10}),
        batch=PerResolution(16, {4: 32, 8: 32}),
        lr=PerResolution(0.004, {32: 0.003, 64: 0.002}),
        anneal_kimg=110.0,
    ),
    loss=LossConfig(
        name="relativistic",
        r1_gamma=PerResolution(1.0, {64: 0.3}),
        r2_gamma=PerResolution(1.0, {64: 0.3}),
        r1_interval=8,
        aid_zoom=2,
    ),
    data=DataConfig(mirror=True),
    total_kimg=450,
    ema_kimg=8.0,
    ema_ramp=0.05,
    tick_kimg=PerResolution(1, {4: 4, 8: 4, 16: 4, 32: 2}),
)

_FACES128 = replace(
    _FACES64,
    preset="faces128",
    model=replace(_FACES64.model, resolution=128, fmap_base=8192, fmap_max=256),
    growth=replace(
        _FACES64.growth,
        final=128,
        stable_kimg=PerResolution(60, {4: 16, 8: 100}),
        fade_kimg=PerResolution(30, {8: 10, 16: 10, 32: 20}),
        lr=PerResolution(0.003, {64: 0.002, 128: 0.002}),
        anneal_kimg=200.0,
    ),
    loss=replace(
        _FACES64.loss,
        r1_gamma=PerResolution(4.0, {64: 1.2, 128: 0.6}),  # the same as there, where a penalty is a quarter as strong
        r2_gamma=PerResolution(4.0, {64: 1.2, 128: 0.6}),
        aid_zoom=1,
    ),
    total_kimg=650,
    tick_kimg=PerResolution(1, {4: 8, 8: 8, 16: 4, 32: 2}),
)

PRESETS: Mapping[str, Preset] = {
    "digits32": Preset("handwritten digits; minutes on a CPU", {1: _DIGITS32}),
    "faces64": Preset("faces at 64x64; one to three hours on two CPU cores", {1: _FACES64}),
    "faces128": Preset("faces at 128x128; a night on a CPU, or one small GPU", {1: _FACES128}),
    "ffhq256": Preset("StyleGAN as published, up to 256x256", {n: _ffhq(256, n) for n in _STYLEGAN_BATCH}),
    "ffhq512": Preset("StyleGAN as published, up to 512x512", {n: _ffhq(512, n) for n in _STYLEGAN_BATCH}),
    "ffhq1024": Preset("StyleGAN as published, FFHQ", {n: _ffhq(1024, n) for n in _STYLEGAN_BATCH}),
    "celebahq1024": Preset("StyleGAN as published, CelebA-HQ", {n: _celebahq(n) for n in _STYLEGAN_BATCH}),
    "progan1024": Preset("ProGAN as published, CelebA-HQ", {n: _progan(n) for n in _PROGAN_LR}),
}


def preset(name: str, gpus: int) -> RunConfig:
    """The preset `name` for `gpus` GPUs. Raises UserError for an unknown name."""
    if name not in PRESETS:
        raise UserError(f"there is no --cfg {name}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name].config(gpus)


def varying() -> set[str]:
    """The settings (dotted names) that depend on the preset."""
    configs = [cfg for entry in PRESETS.values() for cfg in entry.by_gpus.values()]
    return {name for cfg in configs for name, _, _ in differences(RunConfig(), cfg)} - {"preset", "gpus"}
