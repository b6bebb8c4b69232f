"""Our networks compute what the published ones do: same weights, same inputs, same outputs.

The data come from the published TensorFlow code with random weights, in small sizes that still take every path (noise
strengths, biases and averages are all non-zero). Pictures of 32 pixels and more keep every third pixel of every third
row. The published networks draw at full size whatever the level of detail; what is kept is before that enlargement.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan.checkpoints.tensorflow import PublishedNetwork, read_published, stage_of, translate
from stylegan.networks.base import Discriminator, Generator
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.sampling import mix

DATA = Path(__file__).parents[2] / "data"
SPEC = json.loads((DATA / "official.json").read_text())
CASES = [pytest.param(net, case, id=f"{net}-{case['key']}") for net in SPEC for case in SPEC[net]["cases"]]
TOLERANCE = 1e-5  # of the largest value: what float32 leaves of two orders of summation


@lru_cache(maxsize=1)
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


@lru_cache(maxsize=3)
def network(name: str, which: str) -> tuple[PublishedNetwork, Generator | Discriminator]:
    """From the network file where there is one, else from its variables."""
    if (DATA / f"{name}.pkl").exists():
        file = read_published(DATA / f"{name}.pkl")
        found = {"G": file.G, "D": file.D, "Gs": file.G_ema}[which]
    else:
        spec, prefix = SPEC[name]["networks"][which[0]], f"var/{which}/"
        variables = {k.removeprefix(prefix): v for k, v in arrays(name).items() if k.startswith(prefix)}
        found = translate(spec["function"], spec["settings"], variables)
    module = (build_generator if found.kind == "generator" else build_discriminator)(found.config)
    module.load_state_dict(found.state)
    return found, module


def inputs(name: str, key: str) -> torch.Tensor:
    return torch.from_numpy(arrays(name)[f"in/{key}"])


def compute(name: str, case: dict[str, Any]) -> torch.Tensor:
    published, net = network(name, case["net"])
    full = published.config.resolution
    stage = stage_of(full, case.get("lod", 0.0))
    if isinstance(net, Discriminator):
        images = F.avg_pool2d(inputs(name, "images")[: case["first"]], full // stage.resolution)
        scores, labels = net.outputs(images, stage=stage)
        return labels if case["what"] == "labels" else scores[:, None]
    z = inputs(name, "z")
    c = inputs(name, "labels").argmax(dim=1) if published.config.num_classes else None
    match case["what"]:
        case "ws":
            return net.latents(z)
        case "w_avg":
            return torch.lerp(net.mapping(z).mean(dim=0), net.mapping.w_avg, 0.995)
        case "images":
            ws = net.latents(z, c, psi=case.get("psi", 1.0), cutoff=case.get("cutoff"))
        case "images of mixed ws":
            ws = inputs(name, "ws_mixed")
        case "images of a crossover":
            ws = mix(net.latents(z), net.latents(inputs(name, "z2")), case["crossover"])
    every = case.get("every", 1)
    return net.synthesis(ws, stage)[:, :, ::every, ::every]


@torch.inference_mode()
@pytest.mark.parametrize(("name", "case"), CASES)
def test_ours_equals_the_published_network(name: str, case: dict[str, Any]) -> None:
    expected = torch.from_numpy(arrays(name)[case["key"]])
    ours = compute(name, case)
    assert ours.shape == expected.shape
    error = (ours - expected).abs().max().item()
    assert error <= TOLERANCE * max(1.0, expected.abs().max().item())


@torch.inference_mode()
def test_the_comparison_would_notice_an_unflipped_kernel() -> None:
    """At 128 and above the published network upsamples inside the convolution, which turns its kernels round."""
    case = next(c for c in SPEC["stylegan_r128_auto"]["cases"] if c["what"] == "images")
    _, net = network("stylegan_r128_auto", "Gs")
    expected = torch.from_numpy(arrays("stylegan_r128_auto")[case["key"]])
    weight = net.synthesis.blocks["128"][0].weight
    weight.copy_(weight.flip(2, 3))
    error = (compute("stylegan_r128_auto", case) - expected).abs().max()
    weight.copy_(weight.flip(2, 3))
    assert error > 100 * TOLERANCE * expected.abs().max()


@torch.inference_mode()
def test_the_comparison_would_notice_where_the_average_is_taken() -> None:
    """In the unfused discriminator of ProGAN the average comes after the activation, which is another function."""
    published, net = network("progan_r32_unfused", "D")
    assert isinstance(published.config, ProGANConfig) and not published.config.fused_scale
    other = build_discriminator(replace(published.config, fused_scale=True))
    other.load_state_dict(net.state_dict())
    images = inputs("progan_r32_unfused", "images")
    for ours, theirs in zip(net.outputs(images), other.outputs(images), strict=True):
        assert (ours - theirs).abs().max() > 1000 * TOLERANCE * ours.abs().max()
