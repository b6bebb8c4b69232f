"""Directions move latents there and back, and come back from their file to the network that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylegan.editing.directions import (
    Directions,
    angle_between,
    in_w,
    joined,
    layers_to_move,
    listed,
    load_directions,
    moved,
    moved_ws,
    moves_of,
    one_by_one,
    save_directions,
)
from stylegan.editing.pca_sefa import covariance
from stylegan.editing.settings import MoveSettings
from stylegan.latents.latents import Latents
from stylegan.latents.notation import DIRECTIONS
from stylegan.networks.config import LayerInfo
from stylegan.networks.stylegan1 import StyleGAN1Config
from tests.stylegan.tiny import TINY, snapshot
from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.errors import UserError

SIZES = [32, 32, 16, 16, 8, 8]


def latents(count: int = 2) -> Latents:
    torch.manual_seed(2)
    z = torch.randn(count, 8)
    names = tuple(f"seed{i:04d}" for i in range(count))
    return Latents(snapshot().G.latents(z), names, names, z=z, psi=1.0)


def some(count: int = 1, seed: int = 3) -> Directions:
    torch.manual_seed(seed)
    names = [f"d{seed}{i}" for i in range(count)]
    return in_w(torch.randn(count, 8), names, (1, 2, 4), "by chance", torch.cov(torch.randn(8, 200)).double())


def channel_edit() -> Directions:
    styles = [torch.zeros(1, size) for size in SIZES]
    styles[2][0, 5] = 1.0
    zeros = torch.zeros(1, 1, 8)
    return replace(some(), vectors=zeros, styles=tuple(styles), layers=((2,),), names=("layer 2 scale 5",))


@given(st.floats(-5, 5), st.booleans())
def test_there_and_back_returns(strength, styles):
    direction, start = channel_edit() if styles else some(), latents()
    back = moved(moved(start, direction, strength), direction, -strength)
    torch.testing.assert_close(back.ws, start.ws, atol=1e-5, rtol=1e-5)
    assert all(s.abs().max() < 1e-5 for s in back.styles)


def test_strength_0_changes_nothing_at_all():
    start = latents()
    assert moved(start, some(), 0.0) is start and moved_ws(start.ws, some(), 0.0) is start.ws


def test_only_the_layers_of_the_direction_move_or_those_asked_for():
    start, direction = latents(), some()
    for layers, chosen in ((None, {1, 2, 4}), ([0], {0}), ([], set())):
        step = (moved(start, direction, 2.0, layers).ws - start.ws).abs().sum(dim=(0, 2))
        assert {i for i, size in enumerate(step) if size > 0} == chosen
    expected = 2.0 * direction.scales[0] * direction.vectors[0, 0]
    torch.testing.assert_close(moved(start, direction, 2.0).ws[:, 1], start.ws[:, 1] + expected)


def test_w_plus_directions_move_each_layer_its_own_way():
    start = latents()
    direction = replace(some(), vectors=torch.randn(1, 6, 8), layers=(tuple(range(6)),))
    torch.testing.assert_close(
        moved(start, direction, 1.5).ws, start.ws + 1.5 * direction.scales[0] * direction.vectors[0]
    )


def test_what_is_moved_says_so_and_has_no_z():
    found = moved(latents(), channel_edit(), -1.5)
    assert found.z is None and found.names[0] == "seed0000-1.5layer_2_scale_5"
    assert found.origins[1] == "seed0001, -1.5 layer 2 scale 5" and found.psi == 1.0


def test_edits_of_styles_add_up_and_reach_the_image():
    snap, start, edit = snapshot(), latents(), channel_edit()
    once, twice = moved(start, edit, 1.0), moved(moved(start, edit, 1.0), edit, 1.0)
    torch.testing.assert_close(twice.styles[2], 2 * once.styles[2])
    assert once.styles[2][0, 5] == edit.scales[0] and torch.equal(once.ws, start.ws)
    plain, edited = (snap.renderer.draw(x.ws, edits=x.styles) for x in (start, once))
    assert not torch.equal(plain, edited)
    assert moved(start, edit, 1.0, layers=[0]).styles[2].abs().max() == 0


def test_several_directions_and_missing_layers_are_errors():
    with pytest.raises(UserError, match="name one of them"):
        moved(latents(), some(2), 1.0)
    with pytest.raises(UserError, match="no layer 6: these latents have 6"):
        moved(latents(), some(), 1.0, layers=[6])
    with pytest.raises(UserError, match="edits styles"):
        moved_ws(latents().ws, channel_edit(), 1.0)


def test_strength_1_is_one_standard_deviation():
    torch.manual_seed(0)
    w = torch.randn(500, 8) @ torch.randn(8, 8) + 5
    directions = in_w(torch.randn(3, 8) * 7, list("abc"), (0,), "chance", covariance([w])[1])
    torch.testing.assert_close(directions.scales, (w @ directions.vectors[:, 0].T).std(dim=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(directions.vectors.norm(dim=2), torch.ones(3, 1))


def test_the_angle_between_directions_is_exact_even_if_it_is_small():
    axes = in_w(torch.eye(8)[:2] + 1e-6 * torch.eye(8)[[1, 2]], list("ab"), (0,), "axes", torch.eye(8).double())
    a, b = axes[:1], axes[1:]
    assert angle_between(a, a) == 0 and angle_between(a, b) == pytest.approx(90, abs=1e-3)
    close = replace(a, vectors=torch.eye(8)[None, :1])
    assert angle_between(a, close) == pytest.approx(1e-6 * 180 / torch.pi, rel=0.1)


def test_strengths_change_fastest_then_directions_then_latents():
    start = replace(latents(), names=("seed0003", "seed0008"))
    directions = in_w(torch.randn(2, 8), ["a", "b"], range(6), "chance", torch.eye(8).double())
    cells = one_by_one(directions, [-1.0, 0.0, 2.0]).of(start)
    assert len(cells) == 12 and cells.names[:6] == ("seed0003-1a", "seed0003", "seed0003+2a", "seed0003-1b",
                                                  "seed0003-2", "seed0003+2b")  # fmt: skip
    assert torch.equal(cells.ws[8], moved(start[1:], directions[:1], 2.0).ws[0])
    assert torch.equal(cells.ws[7], start.ws[1])


def test_names_with_strengths_add_up_and_names_alone_have_a_row_each():
    start = replace(latents(), names=("seed0003", "seed0008"))
    three = in_w(torch.randn(3, 8), ["smile", "age", "a:b,c"], range(6), "chance", torch.eye(8).double())
    usual = MoveSettings().strengths
    both = moves_of(three, "age:-1, 0:1.5", usual)
    assert both.columns == ("0", "-1 age", "-1 age +1.5 smile") and both.row_names(["x"]) == ["x"]
    cells = both.of(start)
    assert cells.names[:3] == ("seed0003", "seed0003-1age", "seed0003-1age+1.5smile") and len(cells) == 6
    one = moved(start[1:], three[1:2], -1.0)
    assert torch.equal(cells.ws[3], start.ws[1]) and torch.equal(cells.ws[4], one.ws[0])
    assert torch.equal(cells.ws[5], moved(one, three[:1], 1.5).ws[0])
    assert both.turns == ((0, 0), (-1, 0), (-1, 1.5))
    alone = moves_of(three, "age,smile", [-2.0, 0.0])
    assert alone.row_names(["x"]) == ["x  age", "x  smile"] and alone.columns == ("-2", "0")
    assert torch.equal(alone.of(start).ws[2], moved(start[:1], three[:1], -2.0).ws[0])
    assert moves_of(three, "a:b,c", usual).found.names == ("a:b,c",)
    assert alone.turns[0] == (0, 0) and alone.turns[:3] == ((0, 0), (-2, 0), (0, 0))


@pytest.mark.parametrize(("text", "says"), [
    ("smile:1,age", "give a strength to each direction"), ("smile:much", "after a colon comes a strength"),
    ("smile:nan", "after a colon comes a strength"),
    ("smile:1e30", "--name smile:1e30: a strength must be from -100 to 100 "), ("smile:inf", "from -100 to 100"),
    ("smile:1,nose:2", "no direction 'nose'"), ("smile,", "no direc"),
    ("smile,age,0", "smile is named 2 times"), ("smile:", "after a colon"), ("1:2,age:3", "age is named 2 times"),
])  # fmt: skip
def test_names_and_strengths_that_cannot_be(text, says):
    two = in_w(torch.randn(2, 8), ["smile", "age"], range(6), "chance", torch.eye(8).double())
    with pytest.raises(UserError, match=says):
        moves_of(two, text, MoveSettings().strengths)
    with pytest.raises(UserError, match="--strengths and --name smile:1 both say how far"):
        moves_of(two, "smile:1", [1.0])


@dataclass(frozen=True)
class SharedRows(StyleGAN1Config):
    """Two layers for each row of ws."""

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        return tuple(replace(layer, row=layer.row // 2) for layer in super().layers)


def test_layers_that_share_a_row_are_moved_together():
    """Users name rows of ws; edits of styles are numbered by layers."""
    config = SharedRows(**{name: getattr(TINY, name) for name in ("resolution", "z_dim", "w_dim", "fmap_base")})
    assert layers_to_move(some(), "1-2", config, 16) == [1, 2]
    assert layers_to_move(channel_edit(), "1-2", config, 16) == [2, 3, 4, 5]
    start = replace(latents(), ws=torch.randn(2, config.num_ws, 8))
    edit = replace(channel_edit(), layers=((5,),), styles=tuple(torch.ones(1, size) for size in SIZES))
    found = moved(start, edit, 1.0)
    assert torch.equal(found.ws, start.ws) and [bool(s.any()) for s in found.styles] == [False] * 5 + [True]
    with pytest.raises(UserError, match="no layer 6: this direction edits 6"):
        moved(start, edit, 1.0, layers=[6])


# The file


def any_directions(rows: int = 1, styles: bool = False, count: int = 3) -> Directions:
    torch.manual_seed(1)
    sizes = TINY.style_dims() if styles else []
    return Directions(
        torch.randn(count, rows, 8), tuple("abcdef"[:count]), ((0, 1), (2,), (0, 5))[:count], torch.rand(count),
        "by chance", torch.tensor([0.9, 0.6, torch.nan])[:count], torch.tensor([0.5, 0.25, torch.nan])[:count],
        tuple(torch.randn(count, size) for size in sizes),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"a{DIRECTIONS}"


@pytest.mark.parametrize(("rows", "styles"), [(1, False), (6, False), (1, True)])
def test_what_was_saved_comes_back(rows, styles, path):
    snap, saved = snapshot(), any_directions(rows, styles)
    save_directions(path, saved, snap)
    for found in (load_directions(path, snap), load_directions(path, None)):
        assert (found.names, found.layers, found.method) == (saved.names, saved.layers, saved.method)
        pairs = [(found.vectors, saved.vectors), (found.scales, saved.scales), *zip(found.styles, saved.styles)]
        assert all(torch.equal(a, b) for a, b in pairs) and len(found.styles) == len(saved.styles)
        torch.testing.assert_close(found.accuracies, saved.accuracies, equal_nan=True)
        torch.testing.assert_close(found.shares, saved.shares, equal_nan=True)


def test_the_level_of_chance_is_saved_and_listed_and_older_files_have_none(path):
    saved = replace(any_directions(), accuracies=torch.tensor([0.9, 0.8, torch.nan]),
                    chances=torch.tensor([0.75, 0.875, torch.nan]))  # fmt: skip
    save_directions(path, saved, snapshot())
    found = load_directions(path, None)
    assert listed(found)[1].endswith("accuracy 0.900, by chance up to 0.750")
    assert listed(found.named("b"))[1].endswith("accuracy 0.800, by chance up to 0.875  WEAK")
    both = joined([found[:1], replace(found, chances=None)[1:]])
    assert listed(both)[1:3] == [listed(found)[1], listed(replace(found, chances=None))[2]]
    save_directions(path, replace(saved, chances=None), snapshot())
    assert load_directions(path, None).chances is None


def test_one_by_name_or_number():
    found = any_directions()
    assert found.named("b").names == found.named("1").names == found.named(1).names == ("b",)
    assert torch.equal(found.named("c").vectors, found.vectors[2:])
    for wrong in ("d", "3", "-1", ""):
        with pytest.raises(UserError, match="choose from a, b, c, or numbers from 0 to 2"):
            found.named(wrong)
    again = joined([found[:1], found[1:]])
    assert again.names == found.names and torch.equal(again.vectors, found.vectors) and again.layers == found.layers


def test_another_network_is_an_error_with_both_fingerprints(path):
    one, other = snapshot(), snapshot(seed=1)
    save_directions(path, any_directions(), one)
    with pytest.raises(UserError) as caught:
        load_directions(path, other)
    assert all(word in str(caught.value) for word in (one.fingerprint, other.fingerprint, "--force"))
    assert len(load_directions(path, other, force=True)) == 3


@pytest.mark.parametrize(("cfg", "rows", "styles", "says"), [
    (replace(TINY, resolution=8), 1, False, "moves layer 5, but this network has 4 layers"),
    (replace(TINY, resolution=8), 6, False, r"\[6, 8\] numbers.*\[4, 8\]"),
    (replace(TINY, w_dim=16), 1, False, r"\[1, 8\] numbers.*\[1, 16\]"),
    (replace(TINY, fmap_max=8), 1, True, "other sizes"),
])  # fmt: skip
def test_a_network_of_another_shape_is_an_error_even_if_forced(path, cfg, rows, styles, says):
    save_directions(path, any_directions(rows, styles), snapshot())
    with pytest.raises(UserError, match=says):
        load_directions(path, snapshot(cfg), force=True)


@pytest.mark.parametrize(("changes", "says"), [
    ({"format": "else"}, "holds no directions"), ({"vectors": None}, "cannot be read: 'vectors'"),
    ({"vectors": torch.zeros(3, 8)}, "different lengths"), ({"names": ["a"]}, "different lengths"),
    ({"layers": [[0], [1], ["x"]]}, "layers.*must be"), ({"layers": [[0], [1], [-1]]}, "below 0"),
    ({"scales": torch.full((3,), torch.inf)}, "not finite"), ({"names": ["a", "b", "\n"]}, "not a name"),
])  # fmt: skip
def test_a_file_of_something_else_is_one_clear_line(changes, says, path):
    save_directions(path, any_directions(), snapshot())
    tensors, header = load_tensors(path)
    for name, value in changes.items():
        (tensors if name in tensors else header)[name] = value
    save_tensors(path, {name: t for name, t in tensors.items() if t is not None}, header)
    with pytest.raises(UserError, match=says) as caught:
        load_directions(path, snapshot())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_files_that_cannot_be_used(path):
    with pytest.raises(UserError, match="must end in"):
        save_directions(path.with_name("a.safetensors"), any_directions(), snapshot())
    with pytest.raises(UserError, match="there is no file"):
        load_directions(path, None)


SNAP = snapshot()


@given(data=st.data())
def test_a_damaged_file_is_directions_or_a_user_error(data, damaged, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz{DIRECTIONS}"
    save_directions(path, any_directions(styles=True), SNAP)
    path.write_bytes(damaged(data, path.read_bytes()))
    try:
        found = load_directions(path, SNAP, force=True)
    except UserError as error:
        assert str(error).isprintable()
    else:
        assert len(found.names) == len(found.vectors)
        assert all(0 <= layer < TINY.num_ws for layers in found.layers for layer in layers)
