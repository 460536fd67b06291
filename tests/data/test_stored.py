"""Images decoded on access: index by index, by threads, after a fork, and never all at once."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import edm_files, encoded, pixels_of, some_images, write_folder, write_tar, write_zip

from disback_cli.data import sampler, stored
from disback_cli.data.edm import edm
from disback_cli.data.image_folder import image_folder
from disback_cli.data.stored import StoredImages, in_threads
from disback_cli.data.webdataset import webdataset
from disback_cli.errors import UserError

IMAGES = some_images(40)


class Counting:
    """Pictures in memory; counts what is read, and by which threads."""

    def __init__(self, images: np.ndarray) -> None:
        self.pictures = [encoded(image) for image in images]
        self.reads: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return len(self.pictures)

    def where(self, index: int) -> str:
        return f"picture {index}"

    def read(self, index: int) -> bytes:
        self.reads.append(index)
        self.threads.add(threading.get_ident())
        return self.pictures[index]

    def identity(self) -> str:
        return "counted"


@pytest.fixture(params=["zip", "folder", "tar"])
def lazy(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The same forty images from each of the storages."""
    if request.param == "tar":
        shards = {f"{index:03d}.png": encoded(image) for index, image in enumerate(IMAGES)}
        return webdataset(path=str(write_tar(tmp_path / "a.tar", shards)))
    write = write_zip if request.param == "zip" else write_folder
    return edm(path=str(write(tmp_path / f"set.{request.param}", edm_files(IMAGES, list(range(40))))))


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with eight processors."""
    monkeypatch.setattr(stored, "_processors", lambda: 8)


def test_by_index_is_what_is_there_in_sequence(lazy: Any) -> None:
    assert isinstance(lazy, StoredImages)
    whole = pixels_of(lazy)
    assert np.array_equal(whole, IMAGES)
    order = sampler.indices(seed=3, first=35, count=20, n=len(lazy))
    assert np.array_equal(pixels_of(lazy, order.tolist()), whole[order.numpy()])
    one_by_one = torch.cat([lazy.batch(index[None])[0] for index in order])
    assert torch.equal(lazy.batch(order)[0], one_by_one)
    assert lazy.batch(torch.empty(0, dtype=torch.int64))[0].shape == (0, 3, 8, 8)
    pixels, _ = lazy.pixels(order)
    assert pixels.dtype == torch.uint8 and np.array_equal(pixels.numpy(), whole[order.numpy()])
    with pytest.raises(IndexError):
        lazy.batch(torch.tensor([40]))


def test_threads_change_nothing(lazy: Any, many_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).repeat(4)
    threaded, threaded_labels = lazy.batch(order)
    monkeypatch.setattr(stored, "_processors", lambda: 1)
    alone, labels = lazy.batch(order)
    assert torch.equal(threaded, alone)
    assert labels is None or torch.equal(threaded_labels, labels)


def test_large_batches_use_threads_and_small_ones_do_not(many_threads: None) -> None:
    storage = Counting(IMAGES)
    data = StoredImages(storage, name="counted")
    storage.threads.clear()
    data.batch(torch.arange(4))
    assert storage.threads == {threading.get_ident()}
    data.batch(torch.arange(40))
    assert len(storage.threads - {threading.get_ident()}) > 0


def test_the_first_error_in_order_is_the_one_raised(many_threads: None) -> None:
    def work(item: int) -> int:
        if item in (13, 37):
            raise ValueError(str(item))
        return item * item

    assert list(in_threads(work, range(10))) == [item * item for item in range(10)]
    for _ in range(20):
        with pytest.raises(ValueError, match="^13$"):
            list(in_threads(work, range(40)))


def test_opening_reads_headers_and_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, where: str) -> np.ndarray:
        raise AssertionError(f"decoded {where}")

    storage = Counting(IMAGES)
    monkeypatch.setattr(stored, "decode", refuse)
    monkeypatch.setattr(stored, "_ALL_CHECKED", 30)
    monkeypatch.setattr(stored, "_SAMPLED", 10)
    data = StoredImages(storage, name="counted")
    assert sorted(set(storage.reads)) == list(range(0, 40, 4))
    with pytest.raises(AssertionError, match="decoded picture 3"):
        data.batch(torch.tensor([3]))


def test_what_the_sample_missed_is_found_at_access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_ALL_CHECKED", 30)
    monkeypatch.setattr(stored, "_SAMPLED", 10)
    storage = Counting(IMAGES)
    storage.pictures[5] = encoded(some_images(1, size=16)[0])
    storage.pictures[6] = encoded(some_images(1, channels=1)[0])
    data = StoredImages(storage, name="counted")
    with pytest.raises(UserError, match="picture 5 is 16x16, the first image, picture 0, is 8x8"):
        data.batch(torch.tensor([4, 5]))
    with pytest.raises(UserError, match="picture 6 is grey, RGB is expected"):
        data.batch(torch.tensor([6]))


def test_nothing_is_kept_in_memory(lazy: Any) -> None:
    lazy.batch(torch.arange(40))
    assert len(pickle.dumps(lazy)) < IMAGES.nbytes


def test_pickled_sets_read_the_same(lazy: Any) -> None:
    again = pickle.loads(pickle.dumps(lazy))
    assert np.array_equal(pixels_of(again), IMAGES) and again.sha256 == lazy.sha256


# A process of its own: one that has computed with several threads, as the test runner has, cannot be forked safely.
FORKING = """
import multiprocessing
import os
import pickle
import sys

import numpy as np
import torch

from disback_cli.data import stored

torch.set_num_threads(1)
stored._processors = lambda: 8
lazy, images = pickle.load(open(sys.argv[1], "rb"))


def pixels_of(order):
    x, _ = lazy.batch(torch.as_tensor(order))
    return ((x + 1) * 127.5).round().to(torch.uint8).numpy()


def child(seed):
    order = np.random.default_rng(seed).permutation(40)
    right = all(np.array_equal(pixels_of(order), images[order]) for _ in range(5))
    queue.put((os.getpid(), right))


pixels_of(np.arange(40))  # threads have been used before the fork
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=child, args=(seed,), daemon=True) for seed in range(3)]
for process in children:
    process.start()
answers = [queue.get(timeout=60) for _ in children]
assert len({pid for pid, _ in answers}) == 3 and all(right for _, right in answers), answers
"""


def test_forked_processes_read_at_the_same_time(lazy: Any, tmp_path: Path) -> None:
    (tmp_path / "set.pickle").write_bytes(pickle.dumps((lazy, IMAGES)))
    done = subprocess.run(
        [sys.executable, "-c", FORKING, str(tmp_path / "set.pickle")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_hashes_from_bytes_follow_pixels_names_and_order(tmp_path: Path, kind: str) -> None:
    def digest(place: str, images: np.ndarray, name: str = "{:03d}.png") -> str:
        files = {name.format(index): encoded(image) for index, image in enumerate(images)}
        (tmp_path / place).mkdir()
        if kind == "folder":
            return image_folder(path=str(write_folder(tmp_path / place, files))).sha256
        return webdataset(path=str(write_tar(tmp_path / place / "a.tar", files))).sha256

    changed = IMAGES.copy()
    changed[39, 2, 7, 7] ^= 128
    base = digest("a", IMAGES)
    assert digest("b", IMAGES) == base
    assert len({base, digest("c", changed), digest("d", IMAGES[::-1]), digest("e", IMAGES, "x{:03d}.png")}) == 4


def test_wrong_number_of_labels_is_a_defect_of_the_caller() -> None:
    make: Callable[[], StoredImages] = lambda: StoredImages(Counting(IMAGES), torch.zeros(3).long(), name="x")  # noqa: E731
    with pytest.raises(ValueError, match="40 images need as many labels"):
        make()
