"""Designing low-pass filters for `upfirdn2d`."""

from __future__ import annotations

import numpy as np
import scipy.signal
import scipy.special
import torch
from torch import Tensor


def design_lowpass_filter(numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False) -> Tensor | None:
    """A windowed low-pass filter (StyleGAN3, appendix C.1): [numtaps], separable, or radial: [numtaps,numtaps].

    cutoff, width (of the transition band) and fs (sampling rate) are in the same unit. The Kaiser window is as wide as
    the transition band asks for. One tap filters nothing: None.
    """
    if numtaps < 1:
        raise ValueError(f"numtaps must be 1 or more, not {numtaps}")
    if numtaps == 1:
        return None
    if not radial:
        taps = scipy.signal.firwin(numtaps=numtaps, cutoff=cutoff, width=width, fs=fs)
        return torch.as_tensor(taps, dtype=torch.float32)
    position = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    radius = np.hypot(*np.meshgrid(position, position))
    # The Fourier transform of a disc of radius cutoff, up to scale: J1(z) / z, which is 1/2 in the middle.
    z = 2 * np.pi * cutoff * radius
    disc = np.where(z == 0, 0.5, scipy.special.j1(z) / np.where(z == 0, 1, z))
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, width / (fs / 2)))
    window = np.kaiser(numtaps, beta)
    taps = disc * np.outer(window, window)
    return torch.as_tensor(taps / taps.sum(), dtype=torch.float32)
