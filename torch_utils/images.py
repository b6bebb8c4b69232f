"""Pictures: float in [-1, 1] and NCHW inside, uint8 and HWC outside. Converted here and nowhere else."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torch_utils.errors import UserError

PictureFormat = Literal["png", "jpg", "webp", "npy"]


def to_float(images: Tensor) -> Tensor:
    """uint8 [N,C,H,W] -> float32 in [-1, 1], by the published x / 127.5 - 1."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """float in [-1, 1] [N,C,H,W] -> uint8 [N,H,W,C] on the CPU, rounded to nearest."""
    pixels = (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_pil(pixels: np.ndarray) -> Image.Image:
    """uint8 [H,W,C] -> an L, RGB or RGBA picture for 1, 3 or 4 channels."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def encode(pixels: np.ndarray, kind: PictureFormat) -> bytes:
    """uint8 [H,W,C] -> the content of a file: lossless but for jpg; npy holds the array as it is.

    Raises UserError for a jpg with alpha.
    """
    content = io.BytesIO()
    if kind == "npy":
        np.save(content, pixels)
    elif kind == "png":
        to_pil(pixels).save(content, "PNG")
    elif kind == "webp":
        to_pil(pixels).save(content, "WEBP", lossless=True, exact=True)
    elif pixels.shape[2] == 4:
        raise UserError("jpg holds no alpha channel; use png or webp")
    else:
        to_pil(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


def grid(pixels: np.ndarray | Sequence[np.ndarray], columns: int | None = None, rows: int | None = None) -> np.ndarray:
    """Pictures [N,H,W,C] side by side, row by row; missing cells are zero. By default about square. -> [H',W',C]."""
    stack = np.asarray(pixels)
    n, h, w, c = stack.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = rows or math.ceil(n / columns)
    cells = np.zeros((rows * columns, h, w, c), np.uint8)
    cells[:n] = stack
    return cells.reshape(rows, columns, h, w, c).transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)


def enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Repeat each pixel factor x factor times. [N,H,W,C] -> [N,factor*H,factor*W,C]."""
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)
