"""`redraft data get`: fetch, make, check, and only then put in place."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from redraft.core.datasets import DATASETS, Dataset, RawFile, Source, shortest
from redraft.core.errors import DataError, FetchError, InputError
from redraft.data.fetch import fetch
from redraft.data.making import MAKERS

GITHUB = "https://raw.githubusercontent.com"


def get(
    name: str,
    out: Path,
    *,
    base: str = GITHUB,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Makes the files of a published set in the folder `out/name`, or finds them there.

    What is fetched waits in `out/name.part` until they are made, so that who is interrupted can go on.

    Args:
        base: an address or a directory that holds `owner/name/commit/path` of each published file.
        on_progress: called with what is fetched now, how many files are there and how many there will be.

    Returns:
        How many rows each file has, by its path.

    Raises:
        InputError: there is no such set, or another file lies where one of its would.
        FetchError: something cannot be had, or is not what was published: then nothing is put in place.
    """
    dataset = _named(name)
    if "://" in base and not base.startswith(("https://", "http://")):
        raise InputError(f"--from: {base!r:.80} is neither an address of HTTP nor a directory")
    folder, waiting = out / name, out / f"{name}.part"
    if not _is_there(dataset, folder):
        made = waiting / "made"
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out: cannot write {waiting} ({error.strerror}); name another folder") from error
        raw = _fetched(dataset, base, waiting, on_progress)
        try:
            _make(dataset, raw, made)
        except FetchError:
            # Of the files whose digest is not known one must be wrong: the next try has to fetch them anew.
            shutil.rmtree(waiting)
            raise
        folder.mkdir(exist_ok=True)
        for product in dataset.products:
            (made / product.name).replace(folder / product.name)
        shutil.rmtree(waiting)
    return {shortest(folder / product.name): product.rows for product in dataset.products}


def _named(name: str) -> Dataset:
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    raise InputError(f"no data set {name!r:.80}: there are {', '.join(dataset.name for dataset in DATASETS)}")


def _is_there(dataset: Dataset, folder: Path) -> bool:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no directory: move it away, or name another folder (--out)")
    found = [product for product in dataset.products if (folder / product.name).exists()]
    for product in found:
        path = folder / product.name
        if _digest_of_lines(path) != product.sha256:
            raise InputError(f"{path} is another file than would be made: move it away, or name another folder (--out)")
    return len(found) == len(dataset.products)


def _fetched(
    dataset: Dataset, base: str, waiting: Path, on_progress: Callable[[str, int, int], None] | None
) -> dict[str, bytes]:
    files = [(source, file) for source in dataset.sources for file in source.files]
    raw = {}
    for done, (source, file) in enumerate(files):
        if on_progress is not None:
            on_progress(Path(file.path).name, done, len(files))
        raw[file.path] = _content(source, file, base, waiting)
    return raw


def _content(source: Source, file: RawFile, base: str, waiting: Path) -> bytes:
    """A published file, checked: out of a directory, or fetched unless an earlier try has."""
    place = f"{source.repository}/{source.commit}/{file.path}"
    path = waiting / Path(file.path).name
    if "://" not in base:
        path = Path(base) / place
    elif not path.exists():
        fetch(f"{base.rstrip('/')}/{place}", path, file.most_bytes)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"--from: {path} cannot be read ({error.strerror}): name another directory") from None
    got = hashlib.sha256(content).hexdigest()
    if file.sha256 not in (None, got):
        if path.parent == waiting:
            path.unlink()
        raise FetchError(f"{place} is not what was published: its SHA-256 is {got}, expected {file.sha256}")
    return content


def _make(dataset: Dataset, raw: dict[str, bytes], folder: Path) -> None:
    try:
        MAKERS[dataset.name](raw, folder)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError) as error:
        raise FetchError(f"what was fetched for {dataset.name} is not what was published: {error}") from error
    for product in dataset.products:
        got = _digest_of_lines(folder / product.name)
        if got != product.sha256:
            reason = f"the SHA-256 of its lines is {got}, expected {product.sha256}"
            raise FetchError(f"{product.name}, made of what was fetched, is not what it should be: {reason}")


def _digest_of_lines(path: Path) -> str:
    with path.open("rb") as lines:
        return hashlib.sha256(b"".join(sorted(lines))).hexdigest()
