"""How a classifier of attributes is taught, as it is typed. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylegan.directions.attributes import Attribute, parse_attributes
from torch_utils.output import FILES
from torch_utils.settings import Flag, setting

DATA = "Data"
SUFFIX = ".attributes.safetensors"


@dataclass(frozen=True)
class Lesson:
    """data: an archive with a table of what its pictures show, of which the last pictures are only used to judge."""

    data: str = setting("", Flag("--data", "Pictures: an archive or a folder.", DATA, metavar="ZIP"))
    table: str = setting("", Flag("--table", "CSV of what each of them shows.", DATA, metavar="CSV"))
    key: str = setting("file", Flag("--key", "The column with the pictures' file names.", DATA))
    attributes: Sequence[Attribute] = setting((), Flag(
        "--attributes", "Which columns to learn, as in smile>0.5,gender=male,yaw.  [all]", DATA,
        parse=parse_attributes))  # fmt: skip
    held_out: int = setting(500, Flag("--held-out", "How many of the last pictures to judge it by.", DATA))
    resolution: int = setting(64, Flag("--resolution", "Size to learn at; pictures are reduced to it.", DATA))
    epochs: int = setting(16, Flag("--epochs", "How often to show each picture."))
    batch: int = setting(64, Flag("--batch", "Pictures in a step."))
    lr: float = setting(0.003, Flag("--lr", "Learning rate at the start; it falls to 0."))
    seed: int = setting(0, Flag("--seed", "Of weights and order."))
    device: str = setting("auto", Flag("--device", "auto, cpu, cuda or cuda:1."))


@dataclass(frozen=True)
class Learn:
    """`directions.py learn`, as typed."""

    lesson: Lesson = Lesson()
    dest: str = setting("", Flag("--dest", f"The file to write (*{SUFFIX}).", FILES, metavar="FILE"))
