"""The growth schedule: the published arithmetic, and laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_utils.errors import UserError
from training.runs.resume import preset
from training.schedule import GrowthSchedule, PerResolution, TrainingStage

# The tables of the published StyleGAN, written out again: batch by GPU count, learning rate.
BATCH = {
    1: (4, {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}),
    2: (8, {4: 256, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8}),
    4: (16, {4: 512, 8: 256, 16: 128, 32: 64, 64: 32, 128: 16}),
    8: (32, {4: 512, 8: 256, 16: 128, 32: 64, 64: 32}),
}
LR = (0.001, {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003})


def published(nimg: int, gpus: int, *, final: int = 1024, initial: int = 8, stable: float = 600, fade: float = 600):
    """The published arithmetic: (lod, resolution, batch, learning rate) after `nimg` images."""
    cycle = stable + fade
    index = math.floor(nimg / 1000 / cycle)
    into = nimg / 1000 - index * cycle
    lod = math.log2(final) - math.log2(initial) - index
    if fade > 0:
        lod -= max(into - stable, 0.0) / fade
    lod = max(lod, 0.0)
    resolution = 2 ** int(math.log2(final) - math.floor(lod))
    base, table = BATCH[gpus]
    batch = table.get(resolution, base)
    return lod, resolution, batch - batch % gpus, LR[1].get(resolution, LR[0])


@pytest.mark.parametrize("gpus", BATCH)
def test_it_is_the_published_arithmetic_at_ten_thousand_image_counts(gpus):
    schedule = preset("ffhq1024", gpus).growth
    rng = np.random.default_rng(gpus)
    corners = [1000 * k * 600 + d for k in range(16) for d in (-1, 0, 1) if k + d >= 0]
    for nimg in [*corners, *rng.integers(0, 12_000_000, 10_000).tolist()]:
        stage = schedule.at(nimg)
        lod, resolution, batch, lr = published(nimg, gpus)
        assert (stage.resolution, stage.batch, stage.lr) == (resolution, batch, lr)
        assert schedule.lod(stage) == pytest.approx(lod, abs=1e-9)


def test_the_phase_changes_exactly_when_lod_enters_or_leaves_an_integer():
    schedule = preset("ffhq1024", 1).growth
    counts = sorted(np.random.default_rng(0).integers(0, 9_000_000, 2000).tolist() + [600_000 * k for k in range(15)])
    bounds = [(math.floor(lod), math.ceil(lod)) for lod in (published(n, 1)[0] for n in counts)]
    phases = [schedule.at(n).phase for n in counts]
    assert [a != b for a, b in zip(bounds, bounds[1:])] == [a != b for a, b in zip(phases, phases[1:])]


@pytest.mark.parametrize(
    "initial, final, stable, fade", [(4, 64, 800, 800), (8, 256, 10, 3), (16, 32, 7, 0), (8, 64, 0, 5)]
)
def test_other_times_and_sizes_follow_the_same_arithmetic(initial, final, stable, fade):
    schedule = GrowthSchedule(initial, final, PerResolution(stable), PerResolution(fade))
    for nimg in np.random.default_rng(1).integers(0, 1000 * 6 * (stable + fade), 2000).tolist():
        lod, resolution, _, _ = published(nimg, 8, initial=initial, final=final, stable=stable, fade=fade)
        assert schedule.at(nimg).resolution == resolution
        assert schedule.lod(schedule.at(nimg)) == pytest.approx(lod, abs=1e-9)


def test_the_example_in_words():
    assert GrowthSchedule().at(900_000) == TrainingStage(16, 0.5, phase=1, batch=128, lr=1e-3)
    assert GrowthSchedule().at(0) == TrainingStage(8, phase=0, batch=256, lr=1e-3)
    assert GrowthSchedule().at(10**9) == TrainingStage(1024, phase=14, batch=32, lr=3e-3)


def test_a_fade_ends_are_the_stable_stages():
    schedule = GrowthSchedule()
    assert (schedule.at(600_000).phase, schedule.at(600_000).alpha) == (0, 1.0)
    assert schedule.at(600_001).phase == 1 and 0 < schedule.at(600_001).alpha < 1e-5
    assert schedule.at(1_199_999).phase == 1 and schedule.at(1_199_999).alpha > 1 - 1e-5
    assert (schedule.at(1_200_000).phase, schedule.at(1_200_000).alpha) == (2, 1.0)


def test_times_may_differ_by_resolution():
    """Held: by the resolution that is held. Faded: by the one that comes."""
    schedule = GrowthSchedule(4, 16, PerResolution(5, {4: 1, 8: 2}), PerResolution(9, {8: 3, 16: 4}))
    spans = [(p.resolution, p.kind, p.start_kimg, p.end_kimg) for p in schedule.phases(20)]
    assert spans == [
        (4, "stable", 0, 1), (8, "fade", 1, 4), (8, "stable", 4, 6), (16, "fade", 6, 10), (16, "stable", 10, 20),
    ]  # fmt: skip


times = st.builds(
    lambda base, table: PerResolution(base, table),
    st.integers(0, 4).map(float),
    st.dictionaries(st.sampled_from([4, 8, 16, 32, 64]), st.sampled_from([0.0, 0.3, 1.0, 2.5])),
)
schedules = st.builds(
    lambda start, doublings, stable, fade: GrowthSchedule(start, start << doublings, stable, fade),
    st.sampled_from([4, 8, 16]), st.integers(0, 3), times, times,
)  # fmt: skip
counts = st.integers(0, 60_000)


@given(schedules, counts, counts)
def test_growth_never_goes_back(schedule, a, b):
    first, second = schedule.at(min(a, b)), schedule.at(max(a, b))
    assert first.resolution <= second.resolution and first.phase <= second.phase
    assert schedule.lod(first) >= schedule.lod(second)
    if first.phase == second.phase:
        assert first.alpha <= second.alpha


@given(schedules, counts)
def test_a_stage_is_what_its_phase_says(schedule, nimg):
    stage = schedule.at(nimg)
    assert 0 < stage.alpha <= 1
    assert (stage.alpha < 1) == (stage.phase % 2 == 1)
    assert stage.resolution == schedule.initial << (stage.phase + 1) // 2
    assert stage.resolution <= schedule.final
    assert (stage.batch, stage.lr) == (schedule.batch.at(stage.resolution), schedule.lr.at(stage.resolution))
    assert stage == replace(schedule).at(nimg), "the schedule keeps no state"


@given(schedules, st.floats(0.001, 60))
def test_phases_tile_the_run(schedule, total):
    phases = schedule.phases(total)
    assert phases[0].start_kimg == 0 and phases[-1].end_kimg == total
    assert all(a.end_kimg == b.start_kimg for a, b in zip(phases, phases[1:]))
    for phase in phases:
        middle = schedule.at(round(500 * (phase.start_kimg + phase.end_kimg)))
        if phase.end_kimg - phase.start_kimg > 0.01:
            assert (middle.phase, middle.resolution) == (phase.phase, phase.resolution)
            assert (phase.kind == "fade") == (middle.alpha < 1)


numbers = st.floats(0, 1e6) | st.integers(0, 10**6)


@given(numbers, st.dictionaries(st.sampled_from([4 << k for k in range(9)]), numbers))
def test_a_table_reads_back_from_its_text(base, table):
    value = PerResolution(base, table)
    assert PerResolution.parse(str(value), float) == value
    assert hash(PerResolution.parse(str(value), float)) == hash(value)


def test_a_table_falls_back_to_its_base():
    table = PerResolution.parse("8:256,16:128,32", int)
    assert [table.at(r) for r in (4, 8, 16, 32, 1024)] == [32, 256, 128, 32, 32]
    assert str(PerResolution(0.001, {128: 0.0015})) == "128:0.0015,0.001"


@pytest.mark.parametrize("text", ["", "8:256", "1,2", "8:", "a", "8:1.5,2", ":3,4", "8:4:2,1"])
def test_text_that_is_no_table_is_refused(text):
    with pytest.raises(UserError):
        PerResolution.parse(text, int)


def test_the_learning_rate_falls_along_half_a_cosine_once_the_final_resolution_stands_alone():
    plain = GrowthSchedule(initial=8, final=16, stable_kimg=PerResolution(2), fade_kimg=PerResolution(1))
    falling = replace(plain, anneal_kimg=4.0, lr_end=0.2)
    for nimg in range(0, 3001, 100):
        assert falling.at(nimg) == plain.at(nimg)
    rates = [falling.at(3000 + nimg).lr / plain.at(3000 + nimg).lr for nimg in (1000, 2000, 3000, 4000, 90_000)]
    cosines = [0.2 + 0.8 * (1 + c) / 2 for c in (math.sqrt(0.5), 0, -math.sqrt(0.5), -1, -1)]
    assert rates == pytest.approx(cosines)
    later, sooner = replace(falling, anneal_from=3.5), replace(falling, anneal_from=1.0)
    for nimg in range(0, 9001, 100):
        assert sooner.at(nimg) == falling.at(nimg), "not before it stands alone"
        assert later.annealed(nimg) == falling.annealed(nimg - 500)


@given(text=st.one_of(st.text(), st.text("0123456789:,.-einfa ")), kind=st.sampled_from([int, float]))
def test_any_text_is_numbers_by_resolution_or_a_user_error(text: str, kind: type[int] | type[float]) -> None:
    try:
        found = PerResolution.parse(text, kind)
    except UserError as error:
        assert str(error)
    else:
        assert all(type(value) is kind for value in (found.base, *found.table.values()))
