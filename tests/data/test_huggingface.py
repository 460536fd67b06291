"""Hugging Face's data sets, through a stand-in for the library `datasets`, and through itself where installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from image_files import encoded, labels_of, pixels_of, some_images

from disback_cli.data.dataset import Dataset
from disback_cli.data.huggingface import huggingface
from disback_cli.errors import UserError

IMAGES = some_images(5)
LABELS = [1, 0, 2, 2, 0]


class Image:
    """The library's feature."""

    def __init__(self, decode: bool = True) -> None:
        self.decode = decode


class Table:
    """As much of the library's table as is used."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features, self.split = columns, features, None

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def select_columns(self, names: list[str]) -> Table:
        return Table({name: self.columns[name] for name in names}, {name: self.features[name] for name in names})

    def cast_column(self, name: str, feature: Any) -> Table:
        return Table(self.columns, self.features | {name: feature})

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        assert not self.features["img"].decode, "pictures are to stay encoded"
        return {name: values[key] for name, values in self.columns.items()}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Five images, the last one in a file of its own."""
    cells: list[dict[str, Any]] = [{"bytes": encoded(image), "path": None} for image in IMAGES]
    (tmp_path / "last.png").write_bytes(cells[4]["bytes"])
    cells[4] = {"bytes": None, "path": str(tmp_path / "last.png")}
    features = {"img": Image(), "label": SimpleNamespace(num_classes=4), "text": SimpleNamespace()}
    return Table({"img": cells, "label": list(LABELS), "text": ["x"] * 5}, features)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, table: Table) -> Any:
    """The stand-in; ``asked`` collects what was loaded by name."""
    module: Any = ModuleType("datasets")
    module.Image, module.asked = Image, []
    module.load_from_disk = lambda path: {"train": table} if "dict" in path else table

    def load_dataset(*words: Any, **options: Any) -> Table:
        module.asked.append((words, options))
        if words[0] == "user/absent":
            raise FileNotFoundError("no such data set")
        return table

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.fixture
def saved(tmp_path: Path, library: Any) -> str:
    """A folder of save_to_disk."""
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers" / "state.json").touch()
    return str(tmp_path / "flowers")


def test_a_saved_folder(saved: str, library: Any) -> None:
    data = huggingface(path=saved, image_column="img")
    assert isinstance(data, Dataset)
    assert (data.name, data.split, data.shape, data.num_classes) == ("flowers", "all", (3, 8, 8), 4)
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == LABELS
    assert library.asked == []
    bare = huggingface(path=saved, image_column="img", label_column=None, flip=True)
    assert bare.num_classes == 0 and len(bare) == 10


def test_splits_of_a_saved_dict(tmp_path: Path, library: Any) -> None:
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "dataset_dict.json").touch()
    assert len(huggingface(path=str(tmp_path / "dict"), image_column="img")) == 5
    with pytest.raises(UserError, match="no split 'test'; type dataset.split= one of train"):
        huggingface(path=str(tmp_path / "dict"), image_column="img", split="test")


def test_a_table_saved_alone_is_the_split_it_states(saved: str, table: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="one table, which states no split, not 'test': leave dataset.split out"):
        huggingface(path=saved, image_column="img", split="test")
    table.split = "test"
    assert huggingface(path=saved, image_column="img", split="test").split == "test"
    assert "holds one table" not in caplog.text
    assert huggingface(path=saved, image_column="img").split == "test"
    assert "holds one table, split 'test': that is what is read" in caplog.text
    with pytest.raises(UserError, match="one table, which is split 'test', not 'validation'"):
        huggingface(path=saved, image_column="img", split="validation")


def test_a_name_downloads_only_when_allowed(library: Any) -> None:
    with pytest.raises(UserError, match="loading it may download: type dataset.download=true"):
        huggingface(path="user/flowers", image_column="img")
    assert library.asked == []
    data = huggingface(path="user/flowers", image_column="img", download=True, config_name="small", split="test")
    assert data.name == "flowers" and data.split == "test"
    assert library.asked == [(("user/flowers", "small"), {"split": "test", "trust_remote_code": False})]
    with pytest.raises(UserError, match="could not load user/absent, split train: no such data set"):
        huggingface(path="user/absent", download=True)


def test_columns_must_be_there_and_fit(saved: str, table: Table) -> None:
    with pytest.raises(UserError, match="no column 'image'; type dataset.image_column=NAME, of img, label, text"):
        huggingface(path=saved)
    with pytest.raises(UserError, match="no column 'class'; type dataset.label_column=NAME or null, of"):
        huggingface(path=saved, image_column="img", label_column="class")
    with pytest.raises(UserError, match="column 'text' of .* holds SimpleNamespace, not Image"):
        huggingface(path=saved, image_column="text")
    with pytest.raises(UserError, match="row 0 of .*: label 'x' in column 'text', expected an int"):
        huggingface(path=saved, image_column="img", label_column="text")
    table.columns["label"][3] = None
    with pytest.raises(UserError, match="row 3 of .*: no label in column 'label'"):
        huggingface(path=saved, image_column="img")


def test_bad_rows_are_named(saved: str, table: Table) -> None:
    table.columns["img"][2] = None
    with pytest.raises(UserError, match="row 2 of .*flowers: has no image"):
        huggingface(path=saved, image_column="img")
    table.columns["img"][2] = {"bytes": b"x", "path": None}
    with pytest.raises(UserError, match="row 2 of .*flowers: damaged or no image"):
        huggingface(path=saved, image_column="img")
    table.columns["img"][2] = {"bytes": None, "path": "gone.png"}
    with pytest.raises(UserError, match="row 2 of .*: gone.png cannot be read"):
        huggingface(path=saved, image_column="img")


def test_the_hash_follows_pixels_and_labels(saved: str, table: Table) -> None:
    base = huggingface(path=saved, image_column="img").sha256
    assert huggingface(path=saved, image_column="img").sha256 == base
    unlabelled = huggingface(path=saved, image_column="img", label_column=None).sha256
    table.columns["label"][0] = 0
    relabelled = huggingface(path=saved, image_column="img").sha256
    table.columns["img"].reverse()
    assert len({base, unlabelled, relabelled, huggingface(path=saved, image_column="img").sha256}) == 4


def test_folders_that_are_none_and_empty_tables(tmp_path: Path, saved: str, table: Table) -> None:
    with pytest.raises(UserError, match="was not written by save_to_disk .* dataset=image_folder"):
        huggingface(path=str(tmp_path))
    table.columns = {name: [] for name in table.columns}
    with pytest.raises(UserError, match="split all, is empty"):
        huggingface(path=saved, image_column="img")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the library `datasets`: pip install datasets"):
        huggingface(path="anything")


def test_the_library_itself(tmp_path: Path) -> None:
    real = pytest.importorskip("datasets")
    features = real.Features({"image": real.Image(), "label": real.ClassLabel(num_classes=4)})
    cells = [{"bytes": encoded(image), "path": None} for image in IMAGES]
    arrow = pytest.importorskip("pyarrow").table({"image": cells, "label": LABELS}, schema=features.arrow_schema)
    # With a fingerprint given the library need not find one, which takes a dill that fits the rest.
    in_memory = importlib.import_module("datasets.table").InMemoryTable(arrow)
    table = real.Dataset(in_memory, info=real.DatasetInfo(features=features), fingerprint="five")
    table.save_to_disk(str(tmp_path / "alone"))
    real.DatasetDict({"train": table, "test": table.select([3, 1])}).save_to_disk(str(tmp_path / "dict"))
    alone = huggingface(path=str(tmp_path / "alone"))
    assert (alone.name, alone.split, alone.num_classes) == ("alone", "all", 4)
    assert np.array_equal(pixels_of(alone), IMAGES) and labels_of(alone) == LABELS
    with pytest.raises(UserError, match="states no split, not 'test'"):
        huggingface(path=str(tmp_path / "alone"), split="test")
    test = huggingface(path=str(tmp_path / "dict"), split="test")
    assert test.split == "test" and labels_of(test) == [2, 0] and np.array_equal(pixels_of(test), IMAGES[[3, 1]])
    assert huggingface(path=str(tmp_path / "dict")).sha256 == alone.sha256
    with pytest.raises(UserError, match="no split 'val'; type dataset.split= one of train, test"):
        huggingface(path=str(tmp_path / "dict"), split="val")
    with pytest.raises(UserError, match="type dataset.download=true"):
        huggingface(path="user/flowers")
