"""What callers pass to a network from Python, checked at the door: seeds, classes, numbers, and arrays of latents.

Arrays are tensors or NumPy arrays of any precision, on any device. What does not fit the network, or is not finite,
raises a UserError that names the argument. Otherwise a network of 10 layers would silently use the first 10 of 18 rows,
and a single nan would make a black image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from stylegan.networks.config import NetworkConfig
from torch_utils.errors import UserError
from torch_utils.text import counted, printable, shortened

MAX_SEED = 2**32 - 1  # limit of NumPy's RandomState
MAX_SIZE = 1e4
"""No z, w, noise or style of a network comes near it, and images of larger numbers show nothing but the overflow."""
NOISE_MODES = ("const", "random", "none")
Array = Tensor | np.ndarray


def is_array(value: object) -> TypeGuard[Array]:
    """Whether this is a tensor or a NumPy array of numbers that are not integers: latents, and not seeds."""
    if isinstance(value, Tensor):
        return value.is_floating_point() or value.is_complex()
    return isinstance(value, np.ndarray) and value.dtype.kind not in "iu"


def shown(value: object) -> str:
    """An argument for a message: the shape of an array, the beginning of anything else."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{'a tensor' if isinstance(value, Tensor) else 'an array'} {list(value.shape)} of {value.dtype}"
    return printable(shortened(repr(value), 80))


# Numbers


def number(value: object, name: str) -> float:
    """A finite number. Raises UserError for anything else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not math.isfinite(value):
        raise UserError(f"{name} must be a finite number, got {shown(value)}")
    return float(value)


def integer(value: object, name: str, low: int, high: int) -> int:
    """An integer from `low` to `high`. Raises UserError for anything else."""
    found = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if found is None or not low <= found <= high:
        raise UserError(f"{name} must be an integer from {low} to {high}, got {shown(value)}")
    return found


def integers(values: object, name: str, low: int, high: int) -> list[int]:
    """Integers, from a number, a sequence, or an array [N]. Raises UserError for anything else.

    name: of one of them, for messages
    """
    if isinstance(values, (Tensor, np.ndarray)):
        if values.ndim > 1 or is_array(values) or np.ma.is_masked(values) or values.dtype == torch.bool:
            raise UserError(f"{_many(name)} must be integers [N] without a mask, got {shown(values)}")
        values = values.tolist()
    if isinstance(values, Integral):
        values = [values]
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise UserError(f"{_many(name)} must be integers, got {shown(values)}")
    values = list(values)
    rows = sum(isinstance(v, (list, tuple)) or _is_row(v) for v in values)
    if name == "seed" and (rows or sum(isinstance(v, float) for v in values) > 1):
        raise UserError(f"seeds must be integers, got {shown(values)}; give latents as one array, as in "
                        "numpy.array(rows) or torch.stack(rows)")  # fmt: skip
    return [integer(_plain(value), f"a {name}", low, high) for value in values]


def _many(name: str) -> str:
    return f"{name}es" if name.endswith("s") else f"{name}s"


def _is_row(value: object) -> bool:
    """Whether a value in a list is an array, which may be a row of latents."""
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0


def _plain(value: object) -> object:
    """The number in a tensor or array without dimensions, as iterating over one yields."""
    return value.item() if isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0 else value


def seeds_of(seeds: object) -> list[int]:
    """Seeds as a list. Raises UserError for anything else."""
    return integers(seeds, "seed", 0, MAX_SEED)


def classes_of(c: object, count: int, num_classes: int) -> Tensor | None:
    """The classes [N], int64, of `count` images: one for all, or one for each. None without classes.

    Raises UserError for classes that the network does not have, for missing ones, and for another number of them.
    """
    if not num_classes:
        if c is not None:
            raise UserError("this network is unconditional and has no classes; leave out c")
        return None
    if c is None:
        raise UserError(f"this network is conditional: choose a class from 0 to {num_classes - 1} with c")
    found = integers(c, "class", 0, num_classes - 1)
    if len(found) not in (1, count):
        raise UserError(f"c has {len(found)} classes for {counted(count, 'image')}; give one for all, or one for each")
    return torch.tensor(found).expand(count)


# Arrays of latents


def floats_of(value: object, name: str) -> Tensor:
    """Finite float32 numbers from a tensor or an array. A float32 tensor is returned itself. Raises UserError else."""
    if not isinstance(value, (Tensor, np.ndarray)):
        cure = "; make it one with numpy.array or torch.stack" if isinstance(value, (list, tuple)) else ""
        raise UserError(f"{name} must be a tensor or a NumPy array, got {shown(value)}{cure}")
    if np.ma.is_masked(value):
        raise UserError(f"{name} have a mask, which hides {np.ma.count_masked(value)} of their numbers; replace these "
                        "with .filled(VALUE), or leave their rows out")  # fmt: skip
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            raise UserError(f"{name} must be floating-point numbers, got {shown(value)}")
        with np.errstate(over="ignore"):  # they become infinite, which is said below
            value = torch.from_numpy(np.array(value, np.float32))  # a copy: torch warns of read-only memory
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise UserError(f"{name} must be floating-point numbers in memory, got {shown(value)}")
    found = value.float()
    if not bool(found.isfinite().all()):
        raise UserError(f"{name} contain numbers that are not finite, as in nan; images of them would be black")
    return found


def sensible(found: Tensor, name: str) -> Tensor:
    """The tensor itself. Raises UserError for numbers beyond MAX_SIZE."""
    most = float(found.abs().max()) if found.numel() else 0.0
    if not most <= MAX_SIZE:
        raise UserError(f"{name} contain numbers up to {most:.3g}, where those of a network are about 1; images of "
                        "them would show nothing; check what made them")  # fmt: skip
    return found


def z_of(value: object, config: NetworkConfig) -> Tensor:
    """z [N,z_dim], float32. Raises UserError for anything else."""
    z = sensible(floats_of(value, "z"), "z")
    if z.ndim != 2 or z.shape[1] != config.z_dim:
        raise UserError(f"z must be [N, {config.z_dim}] for this network, got {list(z.shape)}")
    return z


def ws_of(value: object, config: NetworkConfig) -> Tensor:
    """ws [N,num_ws,ws_dim], float32, from ws, or from w [N,ws_dim], [N,1,ws_dim] or [ws_dim], one for all layers.

    Raises UserError for anything else, and for num_ws rows [num_ws,ws_dim], which may be as many w or a single ws.
    """
    rows, dim = config.num_ws, config.ws_dim
    ws = sensible(floats_of(value, "ws"), "ws")
    if ws.ndim == 2 and len(ws) == rows > 1 and ws.shape[1] == dim:
        raise UserError(f"[{rows}, {dim}] may be {rows} w or one ws of {rows} layers; give [{rows}, 1, {dim}] or "
                        f"[1, {rows}, {dim}]")  # fmt: skip
    if ws.ndim in (1, 2) and ws.shape[-1] == dim:
        ws = ws.reshape(-1, 1, dim)
    if ws.ndim == 3 and ws.shape[1] == 1 < rows and ws.shape[2] == dim:
        ws = ws.expand(-1, rows, -1)
    require_ws(ws, config)
    return ws


def require_ws(ws: Tensor, config: NetworkConfig) -> None:
    """Raises UserError unless ws have the shape [N,num_ws,ws_dim] of this network. Takes no time."""
    wanted = [config.num_ws, config.ws_dim]
    if ws.ndim != 3 or list(ws.shape[1:]) != wanted:
        raise UserError(f"ws must be [N, {wanted[0]}, {wanted[1]}] for this network, got {list(ws.shape)}; latents of "
                        "another network do not fit")  # fmt: skip


def maps_of(noise: object, count: int, shapes: Sequence[tuple[int, int]]) -> Any:
    """One of NOISE_MODES, places [N,2], or a map [1 or N,1,H,W] for each layer, of these heights and widths, for N =
    `count` images.

    Raises UserError for anything else.
    """
    if isinstance(noise, str) and noise in NOISE_MODES:
        return noise
    if isinstance(noise, Tensor) and noise.dtype == torch.int64 and noise.shape == (count, 2):
        return noise
    if isinstance(noise, (str, Tensor, np.ndarray)) or not isinstance(noise, Sequence):
        raise UserError(f"noise must be 'const', 'random', 'none' or a list of maps, got {shown(noise)}")
    maps = [sensible(floats_of(m, "noise maps"), "noise maps") for m in noise]
    found, wanted = [list(m.shape[1:]) for m in maps[: len(shapes)]], [[1, *shape] for shape in shapes]
    if found != wanted or any(len(m) not in (1, count) for m in maps):
        raise UserError(f"noise maps must be {counted(len(shapes), 'map')} for each of {counted(count, 'image')} here, "
                        f"as large as those of the network; got {[list(m.shape) for m in maps[:20]]}; use 'const' or "
                        "'none'")  # fmt: skip
    return maps


def edits_of(edits: Sequence[object], count: int, dims: Sequence[int]) -> list[Tensor]:
    """Changes of styles, [1 or N,style_dim] for each layer, or none. Raises UserError for anything else."""
    found = [sensible(floats_of(edit, "changes of styles"), "changes of styles") for edit in edits]
    shapes = [list(edit.shape) for edit in found]
    if found and any(len(s) != 2 or s[0] not in (1, count) or s[1] != d for s, d in zip(shapes, dims, strict=False)):
        raise UserError(f"changes of styles must be [1 or {count}, D] with D of {list(dims)}, got {shapes}")
    if found and len(found) < len(dims):
        raise UserError(f"changes of styles must be {len(dims)}, one for each layer, got {len(found)}")
    return found
