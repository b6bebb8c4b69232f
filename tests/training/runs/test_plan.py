"""The plan that --dry-run prints."""

import re
from dataclasses import replace

import pytest

from stylegan.networks.registry import build_discriminator, build_generator
from torch_utils.settings import leaves, replaced
from training.presets import PRESETS
from training.runs.plan import describe, duration, growth_line, growth_table, parameter_counts, unfinished_growth
from training.runs.resume import preset
from training.schedule import PerResolution

DIGITS = preset("digits32", 1)


def speed(resolution):
    return 1000.0 / resolution


def footprint(resolution):
    return resolution << 25, 16 if resolution < 32 else 8


def test_every_setting_is_in_the_plan():
    text = describe(DIGITS, speed, footprint)
    assert all(name in text for name, _ in leaves(DIGITS))


def test_classes_without_images_are_listed_and_not_multiplied():
    changes = {"data.empty_classes": (2, 7), "data.class_names": ("a", "b", "dog"), "model.blur": (1, 2, 1)}
    text = describe(replaced(DIGITS, changes), speed, footprint)
    assert re.search(r"empty_classes +2 dog, 7\n", text) and re.search(r"blur +1,2,1\n", text)


def test_settings_are_shown_as_they_are_typed():
    text = describe(replaced(DIGITS, {"loss.diffaugment": ("color", "cutout")}), speed, footprint)
    assert re.search(r"diffaugment +color,cutout\n", text)
    assert re.search(r"diffaugment +none\n", describe(DIGITS, speed, footprint))
    assert re.search(r"model.base +4x4\n", text)


def test_what_people_look_for_comes_first_and_growth_that_ends_early_is_said():
    short = replaced(DIGITS, {"total_kimg": 5.0})
    text = describe(short, speed, footprint, ["Disk of 3 GB"])
    places = [text.index(part) for part in ("Growth", "It ends at 8x8; 32x32 is", "Memory", "Disk of", "Settings")]
    assert places == sorted(places)
    assert "It ends" not in describe(DIGITS, speed, footprint)
    assert growth_line(short) == "8x8 to 5 kimg"
    (fade,) = [phase for phase in DIGITS.growth.phases(100.0) if phase.kind == "fade" and phase.resolution == 16]
    middle = round(500 * (fade.start_kimg + fade.end_kimg))
    assert unfinished_growth(DIGITS, middle).startswith("It ends while 16x16 fades in, at 50%; 32x32 is reached at")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_described(name):
    cfg = preset(name, 8)
    lines = growth_table(cfg, speed, footprint)
    assert len(lines) == 2 + len(cfg.growth.phases(cfg.total_kimg))
    assert len({len(line) for line in lines}) == 1, "the columns line up"


def test_steps_and_times_add_up():
    cfg = replaced(DIGITS, {"growth.batch": PerResolution(10), "total_kimg": 100.0})
    table = growth_table(cfg, speed, footprint)
    rows = [re.split(r"  +", line.strip()) for line in table]
    steps = [int(row[-3].replace(",", "")) for row in rows[1:-1]]
    assert sum(steps) == 100 * 1000 / 10
    seconds = sum((p.end_kimg - p.start_kimg) * p.resolution for p in cfg.growth.phases(100.0))
    assert " ".join(rows[-1][1:]) == duration(seconds)


@pytest.mark.parametrize("name", ["digits32", "progan1024"])
def test_parameters_are_counted_as_they_are(name):
    model = replace(preset(name, 1).model, resolution=16)
    networks = build_generator(model), build_discriminator(model)
    assert parameter_counts(model) == tuple(sum(p.numel() for p in net.parameters()) for net in networks)


def test_memory_has_a_column_and_the_most_of_it_a_line():
    table = growth_table(DIGITS, speed, footprint)
    assert [" GiB" in line for line in table] == [False] + [True] * (len(table) - 2) + [False]
    assert "Memory       about 1.0 GiB per device, at 32 with 8 images at once" in describe(DIGITS, speed, footprint)


@pytest.mark.parametrize("seconds, text", [(0, "0s"), (59.4, "59s"), (192, "3m 12s"), (8100, "2h 15m"), (2e5, "2d 7h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
