"""What the variables and the arguments of a published TensorFlow network are, checked as they are taken."""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from stylegan.networks.mapping import Activation
from torch_utils.errors import UserError

State = dict[str, Tensor]
Settings = dict[str, Any]
T = TypeVar("T")


# Arguments


def setting(settings: Settings, name: str, default: T, least: int = 0) -> T:
    """One argument. Raises UserError if it has another type than the default, or is out of range."""
    value = settings.get(name, default)
    value = value.item() if isinstance(value, np.generic) else value
    if type(value) is not type(default) or (isinstance(value, int) and not least <= value < 1 << 20):
        raise UserError(f"setting {name} is {shown_briefly(value)}, which published networks cannot have")
    return value


def require_settings(settings: Settings, values: dict[str, bool | float]) -> None:
    for name, value in values.items():
        if settings.get(name, value) != value:
            raise UserError(f"setting {name} is {shown_briefly(settings[name])}, but only {value} is supported")


def filter_taps(settings: Settings, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """The taps of a filter; () for None."""
    taps = settings.get(name, default)
    if taps is None:
        return ()
    if not isinstance(taps, (list, tuple)) or len(taps) > 64 or not all(isinstance(t, (int, float)) for t in taps):
        raise UserError(f"setting {name} must be None or up to 64 numbers, got {shown_briefly(taps)}")
    return tuple(taps)


def activation(settings: Settings, name: str) -> Activation:
    value = setting(settings, name, "lrelu")
    if value not in ("lrelu", "relu"):
        raise UserError(f"setting {name} must be 'lrelu' or 'relu', got {shown_briefly(value)}")
    return cast(Activation, value)


def shown_briefly(value: Any) -> str:
    """A value from the file, which may be deep or large, as a short text."""
    return ascii(reprlib.repr(value))[1:-1][:60]


# Variables


class Variables:
    """The variables of one network, each of which is taken once, as float32 and in our axis order."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.unused = set(arrays)

    def take(self, name: str, ndim: int = 1) -> Tensor:
        """A variable in its own axis order. Raises UserError if it is missing or has another number of dimensions."""
        if name not in self.arrays or np.ndim(self.arrays[name]) != ndim:
            raise UserError(f"variable {name} is missing or of another shape; the network is not as published")
        self.unused.discard(name)
        return torch.from_numpy(np.array(self.arrays[name], dtype=np.float32))

    def dense(self, name: str) -> Tensor:
        """[in,out] -> [out,in]."""
        return self.take(name, ndim=2).t()

    def conv(self, name: str, axes: str = "hwio") -> Tensor:
        """[h,w,in,out], or with other `axes` -> [out,in,h,w]."""
        return self.take(name, ndim=4).permute([axes.index(axis) for axis in "oihw"])

    def require_all_taken(self) -> None:
        """Raises UserError if the network has a part that ours does not have."""
        if self.unused:
            raise UserError(f"variable {min(self.unused)} is unknown; the network is not as published")
