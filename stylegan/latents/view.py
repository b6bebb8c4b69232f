"""Which network to use, and how to draw with it, as it is typed; `painter.py` opens both.

Imports nothing that takes time, so that --help does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylegan.networks.config import NoiseMode
from torch_utils.errors import UserError
from torch_utils.settings import Flag, setting

WHAT, HOW = "Pictures", "Drawing"
MAX_PSI = 10


@dataclass(frozen=True)
class Model:
    """A network, for tools that do not draw."""

    network: str = setting("", Flag(
        "--network", "Snapshot (.safetensors), published network (.pkl), folder of a run, URL, or name.", WHAT,
        metavar="MODEL"))  # fmt: skip
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class View(Model):
    """A network, and how to draw with it. None: as the network itself says."""

    trunc: float | None = setting(None, Flag(
        "--trunc", "Truncation psi: 1 for all variety, less for better pictures.  [0.7; ProGAN: 1]", HOW,
        parse=lambda text: parse_psi(text), metavar="PSI"))  # fmt: skip
    trunc_cutoff: int | None = setting(None, Flag("--trunc-cutoff", "Truncate only the first N layers.", HOW))
    noise_mode: NoiseMode = setting(
        "const", Flag("--noise-mode", "Fine detail: the network's own, drawn from the seed, or none.", HOW)
    )
    resolution: int | None = setting(None, Flag("--resolution", "Draw at a lower resolution of the network.", HOW))
    alpha: float | None = setting(None, Flag("--alpha", "Weight of the newest resolution, 0 to 1.", HOW))
    delta: str = setting("", Flag(
        "--delta", "Weights tuned to a photo, NAME.delta.safetensors of project.py --pti.", HOW,
        metavar="FILE"))  # fmt: skip


def parse_psi(text: str) -> float:
    """ "0.7" -> 0.7. Raises UserError as `require_psi` does, and for what is no number."""
    try:
        psi = float(text)
    except ValueError:
        raise UserError(f"'{text}' is no number; 0.7 is usual") from None
    require_psi(psi)
    return psi


def require_psi(psi: float, flag: str = "--trunc") -> None:
    """Raises UserError for a truncation beyond which there are only broken pictures, and for what is no number."""
    if not abs(psi) <= MAX_PSI:
        raise UserError(f"{flag} {psi:g} is not from -{MAX_PSI} to {MAX_PSI}; 0.7 is usual, and 1 truncates nothing")
