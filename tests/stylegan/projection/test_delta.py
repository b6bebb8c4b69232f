"""Tuned weights come back from their file, or say what is wrong with it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.checkpoints.snapshot import Snapshot
from stylegan.networks.registry import build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from stylegan.projection.pivotal_tuning import Delta, load_delta, save_delta, with_delta
from stylegan.projection.settings import DELTA
from torch_utils.errors import UserError

TINY = StyleGAN1Config(resolution=8, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
SNAP = Snapshot(build_generator(TINY).eval().requires_grad_(False), None, TINY, TINY.full, 1.0, "faces")


def test_a_name_in_a_damaged_file_cannot_speak_to_the_terminal(tmp_path):
    path = tmp_path / f"escape{DELTA}"
    save_delta(path, Delta({"\x1b[2Jmapping": torch.ones(8)}, ("photo eva.jpg",)), SNAP)
    with pytest.raises(UserError, match="does not fit this network") as caught:
        load_delta(path, SNAP, force=True)
    assert str(caught.value).isprintable()


@given(data=st.data())
def test_a_damaged_file_is_tuned_weights_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{DELTA}"
    name = next(name for name, value in SNAP.G.state_dict().items() if value.ndim == 1)
    save_delta(path, Delta({name: torch.ones_like(SNAP.G.state_dict()[name])}, ("photo eva.jpg",)), SNAP)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        found = load_delta(path, SNAP, force=True)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert all(value.isfinite().all() for value in with_delta(SNAP, found).G.state_dict().values())
