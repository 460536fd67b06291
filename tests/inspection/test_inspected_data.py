"""What `disback inspect` says about data sets, samples and reference statistics."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from disback_cli.errors import UserError
from disback_cli.inspection.recognise import inspect

FEATURES = "metrics=inception metrics.extractor.weights=INCEPTION_FILE"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(shade, mode="RGB", size=8):
    buffer = io.BytesIO()
    Image.new(mode, (size, size), shade if mode == "L" else (shade,) * 3).save(buffer, "png")
    return buffer.getvalue()


def write_zip(file, labels):
    with zipfile.ZipFile(file, "w") as archive:
        names = [f"00000/img{index:08d}.png" for index in range(len(labels))]
        for index, name in enumerate(names):
            archive.writestr(name, picture(index))
        archive.writestr("dataset.json", json.dumps({"labels": list(zip(names, labels, strict=True))}))


def test_edm_zip(here):
    write_zip(here / "set.zip", [0, 1, 2, 2])
    report = inspect("set.zip")
    assert report.facts["images"] == 4 and report.facts["shape"] == [3, 8, 8] and report.facts["classes"] == 3
    assert report.facts["images_of_each_class"] == [1, 1, 2]
    assert report.next[0] == f"disback stats dataset=edm dataset.path=set.zip {FEATURES}"
    assert report.next[1].startswith("disback evaluate images=set.zip")


def test_folder_of_images(here):
    for name in ("cat", "dog"):
        (here / "pictures" / name).mkdir(parents=True)
        for index in range(2):
            (here / "pictures" / name / f"{index}.png").write_bytes(picture(index, "L"))
    report = inspect("pictures")
    assert report.facts["classes"] == 2 and report.next[0] == "disback stats dataset=image_folder dataset.path=pictures"
    assert report.next[1] == "disback evaluate images=pictures", "8x8 grey images have the digits' features"


def test_broken_data_set_is_refused_by_its_reader(here):
    write_zip(here / "set.zip", [0, 1])
    with zipfile.ZipFile(here / "set.zip", "a") as archive:
        archive.writestr("00000/other.png", picture(1, size=9))
    with pytest.raises(UserError, match="other.png"):
        inspect("set.zip")


def test_images_and_samples_in_an_npz(here):
    images = np.zeros((10, 8, 8, 3), np.uint8)
    np.savez(here / "data.npz", images=images, labels=np.arange(10) % 2)
    np.savez(here / "samples.npz", samples=images)
    report = inspect("data.npz")
    assert report.kind == "image-data" and "5 each" in report.as_text()
    assert report.next[0] == f"disback stats dataset=npz dataset.path=data.npz {FEATURES}"
    assert [word.split()[1] for word in inspect("samples.npz").next] == ["evaluate"]


def test_points(here):
    np.savez(here / "samples.npz", samples=np.zeros((10, 2), np.float32))
    report = inspect("samples.npz")
    assert report.kind == "samples" and report.facts["arrays"] == {"samples": [10, 2]}


def test_reference_statistics_of_ours_and_of_others(here):
    np.savez(here / "foreign.npz", mu=np.zeros(4), sigma=np.eye(4))
    report = inspect("foreign.npz")
    assert report.facts["dimension"] == 4 and report.facts["samples"] is None and "does not say" in report.notes[0]
    provenance = json.dumps({"dataset": "cifar10", "split": "train", "n": 50000, "extractor": "inception-2015-12-05"})
    np.savez(here / "ours.npz", mu=np.zeros(4), sigma=np.eye(4), provenance=np.array(provenance))
    report = inspect("ours.npz")
    assert report.facts["samples"] == 50000 and report.facts["dataset"] == "cifar10" and not report.notes
    assert report.next == [f"disback evaluate student=RUN {FEATURES} metrics.reference=ours.npz"]


def test_archive_of_something_else_and_one_with_objects(here):
    np.savez(here / "x.npz", a=np.zeros((2, 3)))
    assert inspect("x.npz").facts["arrays"] == {"a": [2, 3]}
    np.savez(here / "objects.npz", images=np.array([{"a": 1}], dtype=object))
    assert inspect("objects.npz").facts["arrays"] == {"images": [1]}
    with zipfile.ZipFile(here / "bad.npz", "w") as archive:
        archive.writestr("a.npy", b"not an array")
    with pytest.raises(UserError, match="not a readable .npz"):
        inspect("bad.npz")


def test_zip_without_pictures(here):
    with zipfile.ZipFile(here / "x.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UserError, match="supported are"):
        inspect("x.zip")
