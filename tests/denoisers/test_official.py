"""The official files of teachers: read from the configuration, looked for, asked for, fetched and verified."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from nvidia_files import tiny_denoiser, write_nvidia_pickle
from omegaconf import OmegaConf

from disback_cli.denoisers.fetching import fetch_files, fetchable, keep_hashes, sidecar, verify_network
from disback_cli.denoisers.official import missing_message, official_place, read_official
from disback_cli.errors import UserError
from disback_cli.runtime import download as download_module

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from file_server import Site, serving

ONE = {"files": [{"name": "net.pkl", "url": "https://host/net.pkl"}], "parameters": 55_733_891, "licence": "MIT"}
SETTINGS = {"allow_http": False, "retries": 1, "timeout": 10.0}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download_module, "_pause", lambda seconds: None)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def pickled(tmp_path_factory):
    """A small network in NVIDIA's format: its bytes, and how many parameters it has."""
    net = tiny_denoiser()
    file = write_nvidia_pickle(tmp_path_factory.mktemp("official") / "net.pkl", net)
    return file.read_bytes(), sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture
def site(pickled):
    with serving(Site(pickled[0])) as served:
        yield served


def node(site, parameters=None, **facts):
    return {"files": [{"name": "net.pkl", "url": site.url, **facts}], "parameters": parameters, "licence": "MIT"}


def test_node_with_one_file():
    official = read_official(ONE | {"counts": {"vp": 1}})
    assert official.files[0].sha256 is None and official.place == "net.pkl"
    assert official.bytes == (4 * 55_733_891, False)
    assert official_place("teachers", ONE) == Path("teachers/net.pkl")


def test_node_with_the_files_of_a_folder():
    files = [{"name": f"dit/{name}", "url": f"https://h/{name}", "bytes": 5} for name in ("a.json", "unet/b.bin")]
    assert read_official({"files": files}).place == "dit"
    assert read_official({"files": files, "root": "dit/unet"}).place == "dit/unet"
    assert read_official({"files": files}).bytes == (10, True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"files": []}, "at least one"),
        ({"files": [{"name": "x"}]}, "a name and a url"),
        ({"files": [{"name": "../x", "url": "u"}]}, "without '..'"),
        ({"files": [{"name": "/x", "url": "u"}]}, "relative name"),
        ({"files": [{"name": "x", "url": "u", "sha256": "abc"}]}, "64 hexadecimal digits"),
        ({"files": [{"name": "x", "url": "u", "bytes": -1}]}, "positive int"),
        ({"parameters": "many"}, "positive int, or null"),
        ({"root": "../elsewhere"}, "without '..'"),
    ],
)
def test_nodes_that_cannot_be_right(change, text):
    with pytest.raises(UserError, match=text):
        read_official(ONE | change)


def test_message_about_a_missing_file(tmp_path):
    message = missing_message("edm_cifar", str(tmp_path), ONE)
    for text in (
        f"put   {tmp_path}/net.pkl", "from  https://host/net.pkl", "sha256 not published",
        "about 222.9 MB for 55,733,891", "licence of the weights: MIT", "disback fetch teacher=edm_cifar",
        "teacher.path=FILE",
    ):  # fmt: skip
        assert text in message, text


def test_message_names_only_the_files_that_are_missing(tmp_path):
    files = [{"name": f"d/{name}", "url": f"https://h/{name}", "bytes": 1234} for name in ("a", "b")]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").touch()
    message = missing_message("x", str(tmp_path), {"files": files})
    assert "https://h/b" in message and "https://h/a" not in message and "1,234 bytes" in message


def test_every_shipped_node_is_right():
    names = fetchable().split(": ")[1].split(", ")
    assert "edm_cifar" in names and "edm_digits" not in names
    for name in names:
        with initialize_config_module("disback_cli.conf", version_base="1.3"):
            teacher = OmegaConf.to_container(compose("fetch", [f"teacher={name}"]).teacher, resolve=True)
        official = read_official(teacher["official"])
        assert all(file.url.startswith("https://") for file in official.files)
        assert official.licence and official_place(teacher["folder"], teacher["official"])


def test_fetch_without_a_published_hash_keeps_the_computed_one(site, tmp_path, pickled, capsys):
    fetched = fetch_files("x", str(tmp_path), node(site), **SETTINGS)
    place = fetched.place
    assert not sidecar(place).exists(), "nothing is kept before it has proved to be the network"
    keep_hashes(fetched)
    digest = hashlib.sha256(pickled[0]).hexdigest()
    assert place.read_bytes() == pickled[0] and sidecar(place).read_text() == f"{digest}  net.pkl\n"
    told = capsys.readouterr().err
    assert "none is published" in told and digest in told and "licence of the weights: MIT" in told


def test_an_existing_file_is_verified_and_not_downloaded_again(site, tmp_path, capsys):
    fetched = fetch_files("x", str(tmp_path), node(site), **SETTINGS)
    keep_hashes(fetched)
    place = fetched.place
    fetch_files("x", str(tmp_path), node(site), **SETTINGS)
    assert len(site.requests) == 1 and "is there already" in capsys.readouterr().err
    place.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"(?s)is there already, but has the sha256.*the one in net\.pkl\.sha256 is"):
        fetch_files("x", str(tmp_path), node(site), **SETTINGS)
    with pytest.raises(UserError, match="has 14 bytes, expected are 99"):
        fetch_files("x", str(tmp_path), node(site, bytes=99), **SETTINGS)
    assert place.read_bytes() == b"something else" and len(site.requests) == 1


def test_a_file_that_was_put_there_by_hand_gets_its_hash_noted(site, tmp_path, pickled, capsys):
    (tmp_path / "net.pkl").write_bytes(pickled[0])
    fetched = fetch_files("x", str(tmp_path), node(site), **SETTINGS)
    assert site.requests == [] and "none is published" in capsys.readouterr().err
    assert fetched.unpublished == {tmp_path / "net.pkl": hashlib.sha256(pickled[0]).hexdigest()}


def test_a_published_hash_is_compared(site, tmp_path, pickled, capsys):
    digest = hashlib.sha256(pickled[0]).hexdigest()
    fetched = fetch_files("x", str(tmp_path), node(site, sha256=digest, bytes=len(pickled[0])), **SETTINGS)
    assert "as published" in capsys.readouterr().err and not fetched.unpublished
    (tmp_path / "net.pkl").unlink()
    with pytest.raises(UserError, match="has been removed"):
        fetch_files("x", str(tmp_path), node(site, sha256="1" * 64), **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_all_addresses_are_checked_before_the_first_download(site, tmp_path):
    files = [*node(site)["files"], {"name": "b", "url": "http://example.org/b"}]
    with pytest.raises(UserError, match="allow_http=true"):
        fetch_files("x", str(tmp_path), {"files": files}, **SETTINGS)
    assert site.requests == [] and list(tmp_path.iterdir()) == []


def test_the_network_is_verified_without_executing_it(site, tmp_path, pickled):
    place = fetch_files("x", str(tmp_path), node(site), **SETTINGS).place
    told = verify_network(place, node(site, parameters=pickled[1]))
    assert f"{pickled[1]:,} parameters (as published), samples 3 x 8 x 8" in told
    with pytest.raises(UserError, match=f"a network of {pickled[1]:,} parameters, the official one has 7"):
        verify_network(place, node(site, parameters=7))
    assert "not published" in verify_network(place, node(site))
