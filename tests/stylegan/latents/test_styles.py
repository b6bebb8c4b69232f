"""Which layers are meant by what is typed."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stylegan.latents.notation import layer_ranges, layers_of, parse_styles
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.errors import UserError

LARGE, SMALL = StyleGAN1Config(), StyleGAN1Config(resolution=32)


@pytest.mark.parametrize(("text", "layers"), [
    ("0-6", [0, 1, 2, 3, 4, 5, 6]), ("5, 0-1,1", [0, 1, 5]), ("coarse", [0, 1, 2, 3]), ("middle", [4, 5, 6, 7]),
    ("fine", list(range(8, 18))), ("Coarse,8", [0, 1, 2, 3, 8]), ("coarse,middle,fine", list(range(18))),
])  # fmt: skip
def test_layers_and_the_names_of_the_paper(text, layers):
    assert layers_of(parse_styles(text), LARGE) == layers == layers_of(text, LARGE)


def test_a_network_of_64_has_fine_styles_and_one_of_8_no_middle_ones():
    assert layers_of("fine", replace(LARGE, resolution=64)) == [8, 9]
    assert layers_of("middle", replace(LARGE, resolution=16)) == [4, 5]
    for text, small in (("fine", SMALL), ("middle", replace(SMALL, resolution=8))):
        with pytest.raises(UserError, match=f"no {text} styles at {small.resolution}x"):
            layers_of(text, small)


def test_layers_beyond_the_network_are_an_error_that_counts_them():
    with pytest.raises(UserError, match="no layer 8: this network has 8 layers at 32x32, 0 to 7"):
        layers_of("0-8", SMALL)
    with pytest.raises(UserError, match="no layer 4: this network has 4 layers at 8x8"):
        layers_of("0-4", SMALL, resolution=8)  # half-grown
    with pytest.raises(UserError, match="no styles"):
        layers_of("0", ProGANConfig(resolution=16))
    with pytest.raises(UserError, match="no styles"):
        layers_of("0", replace(SMALL, styles=False))


@pytest.mark.parametrize("text", ["", "1-", "-1", "4-2", "rough", "0-6,", "1234"])
def test_what_names_no_layers_is_refused(text):
    with pytest.raises(UserError):
        parse_styles(text)


@given(st.text(max_size=8))
def test_any_text_is_styles_or_a_user_error(text):
    with contextlib.suppress(UserError):
        assert parse_styles(text)


@given(st.sets(st.integers(0, 17)))
def test_the_words_for_layers_read_as_those_layers(layers):
    words = layer_ranges(sorted(layers))
    assert (words == "none") if not layers else layers_of(words, LARGE) == sorted(layers)
