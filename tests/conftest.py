"""Property tests bear slow machines, and fresh clones, where Hypothesis first makes its tables of letters.

In continuous integration they try the same cases every time; elsewhere they go looking for new ones, and for long with
`pytest --hypothesis-profile=long`.
And the models that the tests of the scripts share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stylegan.checkpoints.snapshot import Snapshot, store
from stylegan.networks.config import Stage
from stylegan.networks.progan import ProGANConfig
from stylegan.networks.registry import build_discriminator, build_generator
from stylegan.networks.stylegan1 import StyleGAN1Config
from torch_utils.device import usable_cores

MOST_WORKERS = 8  # each of them loads PyTorch

settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.register_profile("long", settings.get_profile("patient"), max_examples=20_000, derandomize=False)
settings.load_profile("patient")

TINY = StyleGAN1Config(resolution=16, z_dim=8, w_dim=8, mapping_layers=2, mapping_dim=8, fmap_base=64, fmap_max=16)
CLASS_NAMES = {"pets": ("cat", "Dog", "sea lion, Zalophus")}
CONFIGS = {
    "faces": TINY, "others": TINY, "half": TINY,
    "digits": replace(TINY, channels=1, num_classes=10), "icons": replace(TINY, channels=4, base=(4, 6)),
    "pets": replace(TINY, num_classes=4),
    "small": replace(TINY, resolution=8), "progan": ProGANConfig(resolution=16, z_dim=8, fmap_max=16),
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker, and the processes that its tests start, one thread, where a test does not ask otherwise."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker for each usable core."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", min(usable_cores(), MOST_WORKERS)))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of each of `CONFIGS`, with its discriminator, and of one ("half") that has half grown."""
    folder = tmp_path_factory.mktemp("models")
    for number, (name, cfg) in enumerate(CONFIGS.items()):
        torch.manual_seed(number)
        G = build_generator(cfg)
        if G.has_w:
            G.mapping.w_avg.normal_()
        stage = Stage(8, 0.4) if name == "half" else cfg.full
        store(
            folder / f"{name}.safetensors",
            Snapshot(G, build_discriminator(cfg), cfg, stage, 5.0, "pictures", class_names=CLASS_NAMES.get(name, ())),
        )
    return folder


@pytest.fixture(scope="session")
def damaged() -> Callable[[st.DataObject, bytes], bytes]:
    """The content of a file, after some of its bytes became others, went missing or came twice.

    Half of those that are drawn are letters of JSON, so that many a header can still be read and says something else.
    """
    letters = st.one_of(st.sampled_from(b'0123456789[]{}",:.-eEntf\\'), st.integers(0, 255))

    def damage(data: st.DataObject, whole: bytes) -> bytes:
        content = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            kind = data.draw(st.sampled_from(["other", "other", "insert", "drop", "cut"]))
            if kind == "other":
                content[at] = data.draw(letters)
            elif kind == "insert":
                content[at:at] = bytes([data.draw(letters)])
            elif len(content) > 1:
                del content[at : at + 1 if kind == "drop" else None]
                content = content or bytearray(b"0")
        return bytes(content)

    return damage


@pytest.fixture
def command_line() -> Callable[..., list[str]]:
    """The words of a command: {option: value} for what the test does not give itself, and what it gives."""

    def command_line(defaults: dict[str, object], *options: object) -> list[str]:
        given = {str(option) for option in options}
        words = [word for option, value in defaults.items() if option not in given for word in (option, value)]
        return [str(word) for word in [*words, *options]]

    return command_line
