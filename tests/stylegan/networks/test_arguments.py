"""What callers pass from Python fits the network, or is one clear error that names the argument."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from stylegan.networks.arguments import classes_of, floats_of, number, seeds_of, ws_of
from stylegan.networks.progan import ProGANConfig
from tests.stylegan.tiny import TINY, trained
from torch_utils.errors import UserError

ROWS, DIM = TINY.num_ws, TINY.w_dim  # 6 and 8
WS = torch.arange(2 * ROWS * DIM, dtype=torch.float32).view(2, ROWS, DIM) / 100


@pytest.mark.parametrize("seeds", [
    [3, 4], (3, 4), range(3, 5), np.array([3, 4], np.uint8), torch.tensor([3, 4]), [np.int64(3), torch.tensor(4)],
    iter([3, 4]),
])  # fmt: skip
def test_seeds_are_integers_in_any_container(seeds):
    assert seeds_of(seeds) == [3, 4] and seeds_of(3) == seeds_of(np.int32(3)) == [3] and seeds_of([]) == []


@pytest.mark.parametrize("seeds", [
    [1.0], [0.7], 1.5, -1, [-1], [2**32], "0-3", ["1"], [True], True, [None], None, torch.tensor([[1, 2]]),
    torch.tensor([1.0]), torch.tensor([True]), np.array([1.5]), [[1, 2]], b"12", {"a": 1},
])  # fmt: skip
def test_what_is_no_seed(seeds):
    with pytest.raises(UserError, match=r"seeds? must be (an integer from 0 to 4294967295|integers)"):
        seeds_of(seeds)


@pytest.mark.parametrize("kind", [float, np.float64, np.float16, np.dtype(">f4"), torch.float64, torch.bfloat16])
def test_floats_of_any_precision_become_float32(kind):
    value = WS.to(kind) if isinstance(kind, torch.dtype) else WS.numpy().astype(kind)
    found = floats_of(value, "ws")
    assert found.dtype == torch.float32 and torch.allclose(found, WS, rtol=1e-2)
    assert floats_of(WS, "ws") is WS


def test_arrays_in_any_order_that_may_not_be_written():
    array = WS.numpy().copy()[::-1, :, ::-1]
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(floats_of(array, "ws"), WS.flip(0, 2))


@pytest.mark.parametrize("wrong", [
    [[0.1]], None, WS.to(torch.int64), WS.bool(), WS.to(torch.complex64), WS.to_sparse(), WS.to("meta"),
    WS.numpy().astype(complex), WS.numpy().astype(str), WS.numpy().astype(object), WS / 0, np.full((1, 8), 1e300),
])  # fmt: skip
def test_what_is_not_finite_numbers(wrong):
    with pytest.raises(UserError, match=r"^ws (must be|contain numbers that are not finite)"):
        floats_of(wrong, "ws")


def test_masks_are_not_ignored():
    masked = np.ma.masked_invalid(WS.numpy())
    assert torch.equal(ws_of(masked, TINY), WS)  # it hides nothing
    masked[0, 0, :3] = np.ma.masked
    with pytest.raises(UserError, match=r"ws have a mask, which hides 3 of .*\.filled"):
        ws_of(masked, TINY)
    with pytest.raises(UserError, match="seeds must be integers .*without a mask"):
        seeds_of(np.ma.masked_equal(np.array([1, 2]), 2))


@pytest.mark.parametrize("wrong", [[[0.1, 0.2], [0.3, 0.4]], [WS[0], WS[1]], [np.zeros(8)], [0.5, 1.5]])
def test_lists_of_latents_are_told_how_to_become_arrays(wrong):
    with pytest.raises(UserError, match=r"seeds must be integers.* numpy.array\(rows\) or torch.stack\(rows\)"):
        seeds_of(wrong)


@pytest.mark.parametrize("size", [1e30, -1e5, 3e38])
def test_numbers_that_no_network_has_are_refused(size):
    maps = [m.clone() for m in NET.G.own_noise()]
    maps[-1][..., -1] = size
    edits = [torch.full((1, dim), size) for dim in TINY.style_dims()]
    draws: list[Callable[[], object]] = [
        lambda: NET.renderer.draw(WS * 0 + size), lambda: NET.renderer.draw(WS, maps),
        lambda: NET.renderer.draw(WS, edits=edits), lambda: NET.renderer.map(torch.full((1, 8), size)),
    ]  # fmt: skip
    for draw in draws:
        with pytest.raises(UserError, match="contain numbers up to .*check what made them"):
            draw()


def test_a_w_stands_for_all_layers():
    w = WS[:, 0]
    for given in (w, w[:, None], w.numpy(), w.double()):
        assert torch.equal(ws_of(given, TINY), w[:, None].expand(-1, ROWS, -1))
    assert torch.equal(ws_of(w[0], TINY), w[:1, None].expand(-1, ROWS, -1))
    assert ws_of(WS, TINY) is WS
    assert ws_of(torch.zeros(3, 8), ProGANConfig(resolution=16, z_dim=8, fmap_max=16)).shape == (3, 1, 8)


@pytest.mark.parametrize("shape", [(1, 18, 8), (1, 5, 8), (2, 6, 16), (2, 16), (2, 2, 6, 8), (), (6,)])
def test_latents_of_another_network_do_not_fit(shape):
    with pytest.raises(UserError, match=r"ws must be \[N, 6, 8\] for this network"):
        ws_of(torch.zeros(shape), TINY)


def test_as_many_rows_as_layers_may_mean_two_things():
    with pytest.raises(UserError, match=r"\[6, 8\] may be 6 w or one ws of 6 layers; give \[6, 1, 8\] or \[1, 6, 8\]"):
        ws_of(torch.zeros(6, 8), TINY)


def test_classes_are_one_for_all_or_one_for_each():
    for given in (2, [2], np.array([2, 2]), torch.tensor([2, 2]), (2, 2), np.int64(2)):
        found = classes_of(given, 2, 3)
        assert found is not None and found.tolist() == [2, 2]
    assert classes_of(None, 2, 0) is None


@pytest.mark.parametrize("c, num_classes, message", [
    (None, 3, "choose a class from 0 to 2 with c"), (3, 3, "a class must be an integer from 0 to 2, got 3"),
    (-1, 3, "from 0 to 2"), (1.0, 3, "classes must be integers"), ([0, 1, 2], 3, "c has 3 classes for 2 images"),
    ([], 3, "c has 0 classes"), (0, 0, "unconditional"), (torch.eye(3), 3, "classes must be integers"),
])  # fmt: skip
def test_classes_that_the_network_does_not_have(c, num_classes, message):
    with pytest.raises(UserError, match=message):
        classes_of(c, 2, num_classes)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "1", None, True, 1j, np.float32("nan"), [1.0]])
def test_what_is_no_number(wrong):
    assert number(np.float32(0.5), "psi") == 0.5 and number(1, "psi") == 1.0
    with pytest.raises(UserError, match="psi must be a finite number"):
        number(wrong, "psi")


NET = trained()
USES: dict[str, tuple[Callable[[], object], str]] = {
    "18 rows": (lambda: NET.renderer.draw(torch.zeros(1, 18, 8)), r"ws must be \[N, 6, 8\]"),
    "18 rows, unprepared": (lambda: NET.G.synthesis(torch.zeros(1, 18, 8)), r"ws must be \[N, 6, 8\]"),
    "nan": (lambda: NET.renderer.draw(WS / 0), "not finite"),
    "noise of other sizes": (lambda: NET.renderer.draw(WS, [torch.zeros(1, 1, 4, 4)] * 6), "noise maps must be 6"),
    "too few maps": (lambda: NET.renderer.draw(WS, [torch.zeros(1, 1, 4, 4)]), "noise maps must be 6 maps"),
    "maps of another count": (lambda: NET.renderer.draw(WS, [m.expand(3, -1, -1, -1) for m in NET.G.own_noise()]),
                              "for each of 2 images"),
    "unknown noise": (lambda: NET.renderer.draw(WS, "constant"), "noise must be 'const'"),
    "one map": (lambda: NET.renderer.draw(WS, torch.zeros(1, 1, 4, 4)), "noise must be"),
    "edits of other sizes": (lambda: NET.renderer.draw(WS, edits=[torch.zeros(1, 3)] * 6), "changes of styles must be"),
    "too few edits": (lambda: NET.renderer.draw(WS, edits=[torch.zeros(1, TINY.style_dims()[0])]), "must be 6"),
    "z of another size": (lambda: NET.renderer.map(torch.zeros(2, 9)), r"z must be \[N, 8\]"),
    "z of nan": (lambda: NET.renderer.map(torch.full((2, 8), torch.nan)), "not finite"),
    "psi of nan": (lambda: NET.renderer.map(torch.zeros(2, 8), psi=float("nan")), "psi must be a finite number"),
    "cutoff": (lambda: NET.renderer.map(torch.zeros(2, 8), psi=0.5, cutoff=7), "cutoff must be an integer from 0 to 6"),
    "cutoff below 0": (lambda: NET.renderer.map(torch.zeros(2, 8), psi=0.5, cutoff=-1), "cutoff must be"),
    "seeds": (lambda: NET.renderer.render([-1]), "a seed must be"),
    "seeds of noise": (lambda: NET.renderer.noise_of([0.5]), "a seed must be"),  # type: ignore[list-item]
    "unconditional": (lambda: NET.renderer.map(torch.zeros(2, 8), torch.tensor([0, 0])), "unconditional"),
    "fewer classes": (lambda: trained(replace(TINY, num_classes=2)).renderer.map(torch.zeros(2, 8), torch.tensor([0])),
                      "1 classes for 2 z"),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_networks_refuse_what_does_not_fit(use):
    wrong, message = USES[use]
    with pytest.raises(UserError, match=message):
        wrong()
