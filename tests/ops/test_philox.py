"""Random numbers of places: the published generator, its laws, and the distributions that are promised."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from ops.philox import LARGEST_STREAM, _words, normals, philox
from ops.style_epilogue import noise_maps

KEYS = [7, -5, 2**62 + 11]


def places(*rows: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(rows)


def signed(high: int, low: int) -> int:
    """64 bits as an int64."""
    value = high << 32 | low
    return value - 2**64 if value >= 2**63 else value


@pytest.mark.parametrize(
    "key, counter, wanted",
    [  # of the authors of Philox, in the file kat_vectors of Random123; the first word of the counter must be 0 here
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ],
)
def test_words_are_those_of_the_published_generator(key, counter, wanted):
    row = places((signed(*key[::-1]), signed(counter[3], counter[2])))
    assert " ".join(f"{int(word):08x}" for word in _words(row, counter[1], 4)[0]) == wanted


def test_words_of_block_and_stream_are_those_of_the_published_generator(monkeypatch):
    blocks = {"ffffffff": "408f276d 41c83b0e a20bc7c6 6d5451fd", "243f6a88": "d16cfe09 94fdcceb 5001e420 24126ea1"}
    rows = {
        "ffffffff": (-1, -1, 0xFFFFFFFF),
        "243f6a88": (signed(0x299F31D0, 0xA4093822), signed(0x03707344, 0x13198A2E), 0x85A308D3),
    }
    for block, wanted in blocks.items():
        key, position, stream = rows[block]
        monkeypatch.setattr(torch, "arange", lambda count, device, block=block: torch.tensor([int(block, 16)]))
        words = _words(places((key, position)), stream, 4)[0]
        assert " ".join(f"{int(word):08x}" for word in words) == wanted


def test_the_kernel_gives_the_numbers_of_the_reference(kernels):
    torch.manual_seed(0)
    rows = torch.randint(-(2**63), 2**63 - 1, (5, 2))
    for stream in (0, 3, LARGEST_STREAM):
        ours, plain = (philox(rows, 40_001, 1_003, stream, impl=impl) for impl in ("cpu", "ref"))
        assert torch.equal(ours[:, 40_001:], plain[:, 40_001:])
        assert (ours - plain).abs().max() <= 1e-6
        assert ours.shape == plain.shape == (5, 41_004) and ours.dtype == plain.dtype == torch.float32


@pytest.mark.parametrize("threads", [1, 2])
def test_a_number_depends_on_its_place_stream_and_index_only(impl, threads):
    rows = places(*itertools.product(KEYS, [0, 1, 2**40]))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = philox(rows, 10_000, 30, 4, impl=impl)
        for count in (1, 3, 4, 63, 64, 65, 4097):
            assert torch.equal(philox(rows, count, 0, 4, impl=impl), whole[:, :count])
        for start in range(len(rows)):
            assert torch.equal(philox(rows[start : start + 2], 10_000, 30, 4, impl=impl), whole[start : start + 2])
        assert torch.equal(philox(rows, 0, 7, 4, impl=impl), whole[:, 10_000:10_007])
    finally:
        torch.set_num_threads(before)


def test_noise_is_the_row_of_numbers_in_the_order_of_pixels(impl):
    rows, x = places((1, 2), (1, 3)), torch.zeros(2, 5, 6, 7)
    assert torch.equal(noise_maps(rows, x, 9, impl=impl).flatten(1), normals(rows, 42, 9, impl=impl))


COUNT = 1 << 18


def test_normal_numbers_are_normal(impl):
    for key in KEYS:
        (numbers,) = normals(places((key, 5)), COUNT, 1, impl=impl).double()
        moments = [numbers.pow(k).mean() for k in (1, 2, 3, 4)]
        # Four standard errors of each moment: the variances of x, x^2, x^3 and x^4 are 1, 2, 15 and 96.
        for found, wanted, variance in zip(moments, [0, 1, 0, 3], [1, 2, 15, 96]):
            assert abs(found - wanted) < 4 * (variance / COUNT) ** 0.5
        assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-3
        assert stats.kstest(numbers.numpy()[::4], "norm").pvalue > 1e-3


def test_the_tails_are_those_of_the_normal_distribution(impl):
    numbers = normals(places(*[(3, position) for position in range(16)]), COUNT, 0, impl=impl).abs()
    for sigma in (2, 3, 4):
        expected = 2 * stats.norm.sf(sigma) * numbers.numel()
        assert abs(int((numbers > sigma).sum()) - expected) < 4.5 * expected**0.5
    assert 4.5 < numbers.max() < 6.8


def test_uniform_numbers_are_uniform(impl):
    (numbers,) = philox(places((11, 0)), 0, COUNT, 5, impl=impl).double()
    assert numbers.min() >= 0 and numbers.max() < 1
    assert stats.kstest(numbers.numpy(), "uniform").pvalue > 1e-3


def test_nothing_is_correlated(impl):
    """Neighbours within a map, positions, streams, keys, and z with noise: |correlation| of 2^16 independent numbers is
    below 0.02 but once in a million."""
    count = 1 << 16
    rows = places((5, 100), (5, 101), (6, 100), (5, 100 + 2**32))
    numbers = torch.cat([normals(rows, count, stream, impl=impl) for stream in (0, 1, 1 << 16)])
    for one, other in itertools.combinations(range(len(numbers)), 2):
        for values in (numbers, numbers.square(), numbers.abs()):
            assert abs(torch.corrcoef(values[[one, other]])[0, 1]) < 0.02
    for row in numbers:
        for distance in (1, 2, 3, 4, 5, 8, 64, 256):
            for values in (row, row.square()):
                assert abs(torch.corrcoef(torch.stack([values[:-distance], values[distance:]]))[0, 1]) < 0.02


def test_nothing_repeats(impl):
    numbers = normals(places(*itertools.product(KEYS, range(4))), 4096, 2, impl=impl)
    pairs = numbers.view(-1, 2)
    assert len(torch.unique(pairs, dim=0)) == len(pairs)


def test_the_registration(kernels):
    torch.library.opcheck(torch.ops.stylegan.philox.default, (places((1, 2)), 3, 9, 5))


def test_errors_name_the_argument():
    good = places((1, 2))
    for message, args in {
        "places must": (good.float(), 1, 0), "places must be int64": (good[0], 1, 0),
        "normals and": (good, -1, 0), "stream must": (good, 1, 0, 2**32),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            philox(*args)
