"""Published data that `redraft data get` makes files of: where it lies, whose it is, and what must come out."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

# No published file here has a fifth of this; where a size is known, that is the bound.
_LARGEST_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """A file as it was published.

    Attributes:
        path: inside its repository.
        sha256: of its bytes; None where we have not seen it said.
        most_bytes: what is larger is not it.
    """

    path: str
    sha256: str | None = None
    most_bytes: int = _LARGEST_BYTES


@dataclass(frozen=True, kw_only=True)
class Source:
    """A repository on GitHub at one commit.

    Attributes:
        repository: owner and name.
        commit: forty hexadecimal digits.
        licence: its SPDX name.
        attribution: whom to name.
        files: what is read of it.
    """

    repository: str
    commit: str
    licence: str
    attribution: str
    files: tuple[RawFile, ...]


@dataclass(frozen=True, kw_only=True)
class Product:
    """A file that is made.

    Attributes:
        rows: how many lines it has.
        sha256: of its lines in ascending order, so that the order in which a source lists its rows decides nothing.
    """

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What `redraft data get NAME` makes: a folder of this name, and its files."""

    name: str
    purpose: str
    sources: tuple[Source, ...]
    products: tuple[Product, ...]


# Digests of the seven training files: one publication of them, of which another confirms BookRestaurant's.
_SNIPS_TRAIN = {
    "AddToPlaylist": "fee1b4645352e70ed8a40f1f87c3b53fc3bf75f8ebc82252a22b82c107e75b01",
    "BookRestaurant": "7677e82cd6e9a8191f0a4502568c786278c984900b4796d3628e46f1abf73ef4",
    "GetWeather": "86f414b2ad8a993134d85d16e25e5d337beae47cef993c0af2a5f440405c60f6",
    "PlayMusic": "901ddbe9781d1fdb8196e789c543f80df3d29ca6e237da64947905adcc0312e4",
    "RateBook": "bb43e4b74134300d5766f6b420d0357a63402987a225f6dc92c806c9c040ce04",
    "SearchCreativeWork": "87b3432de48c71c205aa5238b41d9e3f2d70bdfcd0bea2427544fb9e4bd5e5bb",
    "SearchScreeningEvent": "5447e9440c02e2fb08c3ae16b9f58a4d1332b4bc77fd34691402b02aa4399765",
}
_ENGINES = "2017-06-custom-intent-engines"
SNIPS = Source(
    repository="sonos/nlu-benchmark",
    commit="b86ac7f1577868c42158d0dec77db50956046696",
    licence="CC0-1.0",
    attribution="Coucke et al. 2018, arXiv 1805.10190",
    files=tuple(
        file
        for intent, sha256 in _SNIPS_TRAIN.items()
        for file in (
            RawFile(path=f"{_ENGINES}/{intent}/train_{intent}_full.json", sha256=sha256),
            RawFile(path=f"{_ENGINES}/{intent}/validate_{intent}.json"),
        )
    ),
)
CLINC150 = Source(
    repository="clinc/oos-eval",
    commit="828f8093932c8fe6ca7936c3d2e52903b1c523de",
    licence="CC-BY-3.0",
    attribution="Larson et al. 2019, arXiv 1909.02027",
    files=(
        RawFile(
            path="data/data_full.json",
            sha256="36923c3705a59e08fe9c3883d8bc2dd966ef93e22cb78ac41171782a698d56e0",
            most_bytes=2_495_390,
        ),
    ),
)

DATASETS = (
    Dataset(
        name="snips",
        purpose="requests to an assistant, each with its call",
        sources=(SNIPS,),
        products=(
            Product(
                name="train.jsonl",
                rows=13_773,
                sha256="dbf561d335fc4e675f2f3096b6c0f4e5839132c2c5a5ca7909b4c3b4d76a225f",
            ),
        ),
    ),
    Dataset(
        name="clinc150",
        purpose="requests of 150 other intents and of none",
        sources=(CLINC150,),
        products=(
            Product(
                name="train.jsonl",
                rows=18_200,
                sha256="bb5d33596bd9f29e5008d4cb604fc35cffb706e69ff5719891f7cc8324d0f144",
            ),
        ),
    ),
    Dataset(
        name="decider",
        purpose="typed questions about such requests",
        sources=(SNIPS, CLINC150),
        products=(
            Product(
                name="first.jsonl",
                rows=84_030,
                sha256="018fdad111f51685fc0910d1b5aaa77eb15f52030c5afa1c227bbd0047ae4c81",
            ),
            Product(
                name="train.jsonl",
                rows=28_738,
                sha256="5d77aaccab0656f9a012c0258c0f04676e1e85e79d79dc793de3a773835179b6",
            ),
            Product(
                name="dev.jsonl",
                rows=1_621,
                sha256="1fd4ea169a7759bdb5f9bef186bbf720f45a3dac9377a9aa52ea263dd7a468d1",
            ),
            Product(
                name="test.jsonl",
                rows=1_595,
                sha256="7755061cb7c67508970dd407420dc63ea9fa5f14f3fe2f43c9a358f80aa59254",
            ),
            Product(
                name="scope.jsonl",
                rows=1_391,
                sha256="cb965ae870770ed69c720a77d3d3aacb423757d66003ff4262ecd592968b9742",
            ),
        ),
    ),
    Dataset(
        name="mini",
        purpose="what mini was trained on, and the held-out tenths",
        sources=(SNIPS, CLINC150),
        products=(
            Product(
                name="snips.train.jsonl",
                rows=12_393,
                sha256="936c70f2407d143245ceb48f2db781792cae5567df3d1d0a4d801159d344b30f",
            ),
            Product(
                name="snips.test.jsonl",
                rows=1_380,
                sha256="07ad3524030b0ca42bf8b6f9fe3265ad38e46170dd9f481fca745defe467152d",
            ),
            Product(
                name="clinc.train.jsonl",
                rows=15_703,
                sha256="350dcd10c235db0079b85d8c928781dbbf42dca6d07cc45636e7baaacd98bd93",
            ),
            Product(
                name="clinc.test.jsonl",
                rows=1_777,
                sha256="4ffba58bd6912aaf06f8c0ee863a7992c395dada8a5cc241b29dc49b0df60d07",
            ),
            Product(
                name="tools.json",
                rows=241,
                sha256="65beeb8f381b6484942f87100818a118b15d62b9fbfdbe8a2c8aee7dd02f419e",
            ),
        ),
    ),
)


def command_for(path: str | Path) -> str | None:
    """The command that makes a file which is missing, by the names of the file and its folder; None where none does."""
    path = Path(os.path.abspath(path))
    made = {(dataset.name, product.name) for dataset in DATASETS for product in dataset.products}
    if (path.parent.name, path.name) not in made:
        return None
    folder = shortest(path.parent.parent)
    return f"redraft data get {path.parent.name}" + ("" if folder == "data" else f" --out {shlex.quote(folder)}")


def shortest(path: str | Path) -> str:
    """A path as one would type it here: a recipe's lead through its own folder and back."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)
