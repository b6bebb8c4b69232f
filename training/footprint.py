"""How much memory a run takes at each resolution, found by going through a step on tensors without contents."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from torch_utils.live_bytes import LiveBytes
from training.config import RunConfig
from training.portion import portions
from training.rehearsal import rehearse
from training.schedule import Stage
from training.state import TrainState, fresh_state

META = torch.device("meta")

# Measured on a CPU (docs/performance-log.md): a process holds this much before there is a network, and of what tensors
# hold so many times as much, as freed memory is kept in pieces. A GPU's allocator counts tensors alone.
PROCESS_BYTES = {"cpu": 250 << 20, "cuda": 0}
KEPT = {"cpu": 1.4, "cuda": 1.0}

BytesAndAtOnce = Callable[[int], tuple[int, int]]  # resolution -> peak memory of a device, and pictures at once


def footprint(cfg: RunConfig, dtype: torch.dtype, device: torch.device) -> BytesAndAtOnce:
    """Peak memory at a resolution, and how many pictures are worked on at once.

    The most that tensors hold at any moment of the heaviest step: weights, gradients, moments, the average, and what
    the graphs of two derivatives keep. On a GPU, without --batch-gpu, of as many pictures at once as fit in it.
    """
    with META:
        state = fresh_state(cfg, META)
    kind = device.type if device.type in KEPT else "cuda"
    room = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None

    @cache
    def at(resolution: int) -> tuple[int, int]:
        share = cfg.growth.batch.at(resolution) // cfg.gpus
        sizes = portions(share, cfg.model.mbstd_group, cfg.batch_gpu)
        if cfg.batch_gpu or room is None:
            sizes = sizes[:1]
        for size in sizes:
            held = peak_bytes(state, cfg, resolution, size, dtype)
            peak = PROCESS_BYTES[kind] + round(KEPT[kind] * held)
            if room is None or peak <= room:
                break
        return peak, size

    return at


def peak_bytes(state: TrainState, cfg: RunConfig, resolution: int, at_once: int, dtype: torch.dtype) -> int:
    """Of all tensors, in bytes. state: on the meta device"""
    stage = Stage(0, resolution, 0.5 if resolution > cfg.growth.initial else 1.0, cfg.growth.batch.at(resolution), 0.0)
    networks = (state.G, state.judges, state.G_ema)
    held = [t for net in networks for t in (*net.parameters(), *net.buffers())]
    if state.aid:
        held += [t for kind in {torch.float32, dtype} for t in state.aid.eyes(kind).values()]
    fixed = sum(t.numel() * t.element_size() for t in held)
    with META, LiveBytes() as live:
        rehearse(state, stage, cfg, dtype, cfg.gpus, at_once)
    return fixed + live.peak
