"""Every rule that ties settings together, each failing with one line: the flag, its value, the cure."""

from __future__ import annotations

from stylegan.networks.registry import require_buildable
from torch_utils.errors import UserError
from torch_utils.settings import Flag, declared, leaves
from torch_utils.text import shortened
from training.config import FLAGS, RunConfig
from training.runs.live_metrics import check_metrics
from training.schedule import PerResolution

MAX_RESOLUTION = 4096
LONGEST_TEXT = 4096  # characters


def check(cfg: RunConfig) -> None:
    """Raises UserError at the first setting that cannot be, or does not go with another."""
    _check_numbers(cfg)
    _check_growth(cfg)
    _check_batches(cfg)
    _check_model(cfg)
    _check_loss(cfg)
    check_metrics(cfg)


def _check_numbers(cfg: RunConfig) -> None:
    """Raises UserError for numbers out of bounds, also in settings that only a file can hold, and for long texts."""
    values = dict(leaves(cfg))
    flags = {found.name: found.flag for found in declared(RunConfig, FLAGS)}
    for name, value in values.items():
        flag = flags.get(name, Flag(f"setting '{name}'", ""))
        called = flag.spellings[0]
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise UserError(f"{called} has {len(value):,} characters, more than {LONGEST_TEXT:,}; shorten it")
        for number in value.values() if isinstance(value, PerResolution) else [value]:
            fault = flag.fault(number) if isinstance(number, (int, float)) else ""
            if fault:
                raise UserError(f"{called} {shortened(str(value), 80)} {fault}")
    for name in ("optim.beta1", "optim.beta2"):
        if values[name] >= 1:
            raise UserError(f"{flags[name].spellings[0]} {values[name]} never forgets; give a number from 0 up to, but "
                            "not, 1")  # fmt: skip


def _check_growth(cfg: RunConfig) -> None:
    growth, final = cfg.growth, cfg.model.resolution
    for flag, value in (("--init-res", growth.initial), ("--resolution", final)):
        if value < 4 or value > MAX_RESOLUTION or value & (value - 1):
            raise UserError(f"{flag} {value} is not 4 times a power of two; use 4, 8, 16, ... {MAX_RESOLUTION}")
    if growth.initial not in cfg.model.stages and growth.initial <= final:
        raise UserError(f"--init-res {growth.initial}: {cfg.model.TITLE} does not grow from there; leave it out")
    if growth.initial > final:
        raise UserError(f"--init-res {growth.initial} is above --resolution {final}; start at {final} or below")
    if growth.final != final:
        raise UserError(f"growth would end at {growth.final} but the networks at {final}; set both with --resolution")
    if not 0 < growth.lr_end <= 1:
        raise UserError(f"--lr-end {growth.lr_end} is not a share of the learning rate; give more than 0 and at most 1")
    tables = (("--batch", growth.batch), ("--lr", growth.lr), ("--lod-kimg", growth.stable_kimg),
              ("--fade-kimg", growth.fade_kimg), ("--tick", cfg.tick_kimg))  # fmt: skip
    for flag, table in tables:
        for resolution in table.table:
            if resolution < 4 or resolution & (resolution - 1):
                raise UserError(f"{flag} {table} names {resolution}, which is no resolution; use 4, 8, 16, ...")


def _check_batches(cfg: RunConfig) -> None:
    group = cfg.model.minibatch_group
    for resolution in cfg.growth.resolutions:
        batch = cfg.growth.batch.at(resolution)
        if batch % cfg.gpus:
            near = max(batch - batch % cfg.gpus, cfg.gpus)
            raise UserError(f"--batch {batch} (at {resolution}) is not divisible by --gpus {cfg.gpus}; try {near}")
        share = batch // cfg.gpus
        part = min(share, cfg.batch_gpu or share)
        if share % part:
            raise UserError(
                f"--batch-gpu {part} does not divide the {share} images per GPU (at {resolution}); "
                f"try {_divisor(share, part)}"
            )
        if part > group and part % group:
            raise UserError(
                f"{part} images at once (at {resolution}) are not divisible by --mbstd-group {group}; "
                f"use --batch {max(part // group, 1) * group * cfg.gpus} or --mbstd-group {_divisor(part, group)}"
            )


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`."""
    return next(d for d in range(limit, 0, -1) if number % d == 0)


def _check_model(cfg: RunConfig) -> None:
    model = cfg.model
    if model.channels not in (1, 3, 4):
        raise UserError(f"images of {model.channels} channels cannot be; make them grey, RGB or RGBA (1, 3 or 4)")
    if min(model.base) < 1:
        raise UserError(f"a base of {model.base[0]}x{model.base[1]} pixels cannot be; both must be 1 or more")
    if cfg.data.cond and not model.num_classes:
        unlabelled = cfg.data.path or "the data set"
        raise UserError(f"--cond 1 needs labels, {unlabelled} has none; add them with dataset_tool.py (sub-folders "
                        "become classes with --labels folders), or use --cond 0")  # fmt: skip
    if model.num_classes and not cfg.data.cond:
        raise UserError(f"--cond 0 does not go with a network for {model.num_classes} classes; use --cond 1")
    model.check()
    for name, (least, most) in model.LIMITS.items():
        flag, value = FLAGS.get(f"model.{name}"), getattr(model, name)
        if flag and value is not None and not least <= value <= most:
            raise UserError(f"{flag.spellings[0]} {value} cannot be: give a number from {least} to {most:,}")
    require_buildable(model)


def _check_loss(cfg: RunConfig) -> None:
    loss = cfg.loss
    for flag, gamma in (("--gamma", loss.r1_gamma), ("--r2-gamma", loss.r2_gamma)):
        if loss.name == "wgan-gp" and any(gamma.values()):
            raise UserError(f"{flag} {gamma} does not go with --loss wgan-gp, which has its own penalty; use {flag} 0")
    if loss.name == "wgan-gp" and loss.r1_interval != 1:
        raise UserError(f"--r1-interval {loss.r1_interval} does not go with --loss wgan-gp; use --r1-interval 1")
