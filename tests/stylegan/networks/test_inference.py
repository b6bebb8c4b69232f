"""A folded generator draws the same images, one by one or in batches, and says in which precision."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan.networks import inference
from stylegan.networks.base import Synthesis
from stylegan.networks.config import Stage
from stylegan.networks.dcgan import DCGANConfig
from stylegan.networks.inference import DTYPES, Execution, Renderer, folded, require_precision, usual_batch
from stylegan.networks.layers import Foldable
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.sampling import places_of, z_for_seeds
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError
from torch_utils.images import to_uint8

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CONFIGS = [
    TINY,
    replace(TINY, const_input=False, pixel_norm=True, num_classes=3),
    ProGANConfig(resolution=16, fmap_max=16),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cfg", CONFIGS)
def test_it_draws_the_same(cfg, dtype):
    torch.manual_seed(0)
    G, z = build_generator(cfg), torch.randn(2, cfg.z_dim)
    c = torch.tensor([0, 2]) if cfg.num_classes else None
    for resolution, alpha in [(16, 1.0), (8, 0.3)]:
        how = {"stage": Stage(resolution, alpha), "dtype": dtype}
        assert torch.equal(folded(G, dtype)(z, c, **how), G(z, c, **how))
        with torch.no_grad():
            ours, plain = folded(G, dtype, batch=2)(z, c, **how).float(), G(z, c, **how).float()
        assert (ours - plain).norm() <= (1e-5 if dtype == torch.float32 else 2**-6) * plain.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_discriminator_sees_the_same_to_the_last_bit(dtype):
    torch.manual_seed(0)
    D, x = build_discriminator(TINY), torch.randn(2, 3, 16, 16)
    kept = folded(D, dtype)
    stage = Stage(16, 0.3)
    before = list(kept.features(x, stage, dtype))
    assert all(map(torch.equal, before, D.features(x, stage, dtype)))
    torch.testing.assert_close(kept(x, stage=stage, dtype=dtype), D(x, stage=stage, dtype=dtype))
    with torch.no_grad():
        D.blocks["16"].conv1.weight.add_(1)
    assert all(map(torch.equal, before, kept.features(x, stage, dtype)))
    assert not torch.equal(before[1], list(D.features(x, stage, dtype))[1])


def test_kernels_lie_as_convolutions_read_them():
    for network in (build_generator(TINY), build_discriminator(TINY)):
        layers = [m for m in folded(network).modules() if isinstance(m, Foldable)]
        kernels = [t for layer in layers for t in layer.effective(torch.float32) if t.ndim == 4]
        assert len(kernels) >= 6 and all(t.is_contiguous(memory_format=torch.channels_last) for t in kernels)


@pytest.mark.parametrize("batch", [None, 2])
@torch.no_grad()
def test_it_stays_as_it_is_when_the_generator_learns(batch):
    torch.manual_seed(0)
    G, z = build_generator(TINY), torch.randn(2, 8)
    copied = folded(G, batch=batch)
    before = copied(z)
    for layer in (G.mapping.layers[0], G.synthesis.blocks["8"][0], G.synthesis.to_rgb["16"]):
        layer.weight.add_(1)
    assert torch.equal(copied(z), before)
    assert not torch.equal(G(z), before)


def test_it_takes_no_memory_for_what_it_shares():
    G = build_generator(TINY)
    assert [id(p) for p in folded(G).parameters()] == [id(p) for p in G.parameters()]


# In batches, which a CPU can compute as a GPU does


CPU, BATCHED = torch.device("cpu"), Execution(batched=True)
DRAWN = [
    replace(TINY, num_classes=3),
    replace(TINY, const_input=False, pixel_norm=True),
    ProGANConfig(resolution=16, z_dim=8, fmap_max=16),
    DCGANConfig(resolution=16, z_dim=8, fmap_base=64, fmap_max=16),
]


def trained(cfg):
    """With averages, biases and noise strengths that are not zero."""
    torch.manual_seed(0)
    net = build_generator(cfg).eval().requires_grad_(False)
    for name, value in net.state_dict().items():
        if name.endswith(("bias", "noise_strength", "w_avg")):
            value.normal_(std=0.3)
    return net


def renderers(cfg=TINY, stage=None, execution=BATCHED):
    """The same network one by one, and in batches."""
    net, stage = trained(cfg), stage or cfg.full
    return Renderer.of(net, stage), Renderer.of(net, stage, execution)


def rows_of(renderer, count):
    """ws, noise maps and changes of styles that are others for each of `count` images, but for the first of each."""
    cfg, resolution = renderer.G.config, renderer.stage.resolution
    c = torch.arange(count) % cfg.num_classes if cfg.num_classes else None
    ws = renderer.map(z_for_seeds(range(count), cfg.z_dim), c)
    noise, edits = renderer.noise_of(range(count)), [0.3 * torch.randn(count, d) for d in cfg.style_dims(resolution)]
    return (
        ws,
        [m[:1] if i == 0 else m for i, m in enumerate(noise)],
        [e[:1] if i == 0 else e for i, e in enumerate(edits)],
    )


@pytest.mark.parametrize("cfg", DRAWN)
@pytest.mark.parametrize("stage", [None, Stage(8, 0.4)])
def test_batches_are_the_images_one_by_one_but_for_rounding(cfg, stage):
    one, many = renderers(cfg, stage if len(cfg.stages) > 1 else None)
    ws, noise, edits = rows_of(one, 7)
    found, expected = (renderer.draw(ws, noise, 3, edits) for renderer in (many, one))
    assert float((found - expected).abs().max()) < 2e-5 * max(1.0, float(expected.abs().max()))
    assert len({image.numpy().tobytes() for image in found}) == 7 and found.dtype == torch.float32
    levels = many.pixels(ws, noise, 3, edits).astype(int) - one.pixels(ws, noise, 3, edits)
    assert np.abs(levels).max() <= 1 and (levels != 0).mean() < 1e-3
    for renderer in (one, many):
        assert np.array_equal(renderer.pixels(ws, noise, 3, edits), to_uint8(renderer.draw(ws, noise, 3, edits)))
        assert torch.equal(renderer.draw_there(ws, noise, 3, edits), renderer.draw(ws, noise, 3, edits))
        assert renderer.pixels(ws[:0], batch=3).shape == (0, *renderer.size, cfg.channels)
        assert renderer.draw_there(ws[:0], batch=3).shape == (0, cfg.channels, *renderer.size)


def test_what_stands_beside_an_image_does_not_change_a_bit_of_it():
    _, many = renderers(replace(TINY, num_classes=3))
    ws, noise, edits = rows_of(many, 8)

    def drawn(rows):
        return many.draw(ws[rows], [m if len(m) == 1 else m[rows] for m in noise], 4,
                         [e if len(e) == 1 else e[rows] for e in edits])  # fmt: skip

    whole = drawn(list(range(8)))
    assert torch.equal(drawn(list(range(6))), whole[:6]) and torch.equal(drawn([0]), whole[:1])
    assert torch.equal(drawn([0, 7, 2, 5])[[0, 2]], whole[[0, 2]])


def test_noise_of_places_belongs_to_the_image_in_batches_too():
    one, many = renderers()
    ws, places = one.map(z_for_seeds(range(7), 8)), places_of(3, "test", range(7), CPU)
    found = many.draw(ws, places, batch=3)
    torch.testing.assert_close(found, one.draw(ws, places), rtol=0, atol=2e-5)
    assert torch.equal(many.draw(ws[6:], places[6:], batch=3), found[6:])
    assert not torch.allclose(many.draw(ws, places.flip(0), batch=3), found, atol=1e-2)


class Recorder(Synthesis):
    """Notes how many images are computed at a time."""

    def __init__(self, synthesis):
        super().__init__()
        self.synthesis, self.counts = synthesis, []

    def forward(self, ws, stage=None, noise="const", dtype=torch.float32, edits=()):
        self.counts.append(len(ws))
        return self.synthesis(ws, stage, noise, dtype, edits)


def test_kernels_always_get_batches_of_the_same_size():
    for renderer, expected in zip(renderers(), ([1] * 9, [4, 4, 4]), strict=True):
        recorder = Recorder(renderer.synthesis)
        ws = renderer.map(z_for_seeds(range(9), 8))
        replace(renderer, synthesis=recorder).draw(ws, batch=4)
        assert recorder.counts == expected


def test_ws_do_not_depend_on_the_others_and_are_those_of_one_by_one(monkeypatch):
    one, many = renderers(replace(TINY, num_classes=3))
    z, c = z_for_seeds(range(70), 8), torch.arange(70) % 3
    found = many.map(z, c, psi=0.4, cutoff=2)
    torch.testing.assert_close(found, one.map(z, c, psi=0.4, cutoff=2), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[64:], many.map(z[64:], c[64:], psi=0.4, cutoff=2))
    blends = torch.nn.functional.one_hot(c, 3).float()
    assert torch.equal(many.map(z, blends, psi=0.4, cutoff=2), found)
    with pytest.raises(UserError, match="must be from 0 to 2, got 3"):
        many.map(z[:1], torch.tensor([3]))


class Launches(TorchDispatchMode):
    """Counts the operations that compute or copy: each is a launch or more."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += not func.is_view
        return func(*args, **(kwargs or {}))


def test_a_batch_takes_as_many_launches_and_copies_as_an_image():
    _, many = renderers(replace(TINY, num_classes=3))
    ws, noise, edits = rows_of(many, 64)
    counts = {}
    for count, batch in ((64, 32), (32, 32), (32, 1)):
        with Launches() as launches:
            many.pixels(ws[:count], [m[:count] for m in noise], batch, [e[:count] for e in edits])
        counts[count, batch] = launches.counts
    of_a_batch = sum((counts[64, 32] - counts[32, 32]).values())  # without what is checked at the door
    of_31_images = sum((counts[32, 1] - counts[32, 32]).values())
    assert of_a_batch > 20 and of_31_images == 31 * of_a_batch


# Precision


def test_bf16_computes_feature_maps_of_16_bits_and_images_stay_close():
    for batched in (False, True):
        one, short = renderers(execution=Execution("bf16", batched))
        ws = one.map(z_for_seeds(range(5), 8))
        images, exact = short.draw(ws, batch=2), one.draw(ws)
        assert images.dtype == torch.float32 and 1e-5 < float((images - exact).norm() / exact.norm()) < 2**-6
        assert torch.equal(short.map(z_for_seeds(range(5), 8)), ws) or batched
        kernel = short.synthesis.blocks["16"][1].effective(torch.bfloat16)[0]
        assert kernel.dtype == torch.bfloat16
    short = Renderer.of(trained(TINY), TINY.full, Execution("bf16"))
    assert torch.equal(short.draw(ws, batch=1)[3:], short.draw(ws[3:], batch=8))  # one by one: the same in any batch


@pytest.mark.parametrize(
    "precision, says", [("tf32", "is for GPUs"), ("fp16", "is for GPUs"), ("int8", "must be one of")]
)
def test_a_precision_that_a_cpu_does_not_have_is_refused(precision, says):
    with pytest.raises(UserError, match=f"^precision .*{says}"):
        Renderer.of(trained(TINY), TINY.full, Execution(precision))
    if precision in DTYPES:
        require_precision(precision, torch.device("cuda"))


def test_images_that_fp16_has_no_numbers_for_are_refused():
    half = Execution("fp16", batched=True)
    for scale in (1.0, 1e6):
        net = trained(TINY)
        net.synthesis.to_rgb["16"].weight *= scale
        renderer = Renderer(net, TINY.full, folded(net.synthesis, torch.float16), half)  # which a CPU computes slowly
        ws = renderer.map(z_for_seeds(range(3), 8))
        if scale == 1:
            assert bool(renderer.draw(ws, batch=2).isfinite().all())
            continue
        for draw in (renderer.draw, renderer.pixels, renderer.draw_there):
            with pytest.raises(UserError, match="too large for fp16; use bf16, or fp32"):
                draw(ws, batch=2)


def test_batches_fit_the_device(monkeypatch):
    monkeypatch.setattr(inference, "memory_of", lambda device: 24 * 2**30)
    for resolution, expected in ((64, 64), (256, 64), (512, 32), (1024, 32)):
        assert usual_batch(StyleGAN1Config(), resolution, BATCHED, CPU) == expected
        assert usual_batch(StyleGAN1Config(), resolution, Execution(), CPU) == 8
    monkeypatch.setattr(inference, "memory_of", lambda device: 2**32)
    assert usual_batch(StyleGAN1Config(), 1024, BATCHED, CPU) == 8
    renderer = Renderer.of(trained(TINY), TINY.full)
    assert renderer.batch() == 8 and renderer.batch(3) == 3
    for wrong in (0, -1, 2.5):
        with pytest.raises(UserError, match="batch must be an integer"):
            renderer.draw(renderer.map(z_for_seeds([1], 8)), batch=wrong)
