"""Downloads: whole or absent, continued where they were cut, and never under the final name unless checked."""

import hashlib
import os
import random
import shutil
from collections import namedtuple

import pytest
from file_server import Site, serving

from disback_cli.errors import UserError
from disback_cli.runtime import download as module
from disback_cli.runtime.byte_progress import ByteProgress, megabytes
from disback_cli.runtime.download import Wanted, download, require_safe

CONTENT = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits between attempts are noted, not waited; proxies of the environment are left aside."""
    waits = []
    monkeypatch.setattr(module, "_pause", waits.append)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return waits


@pytest.fixture
def site():
    with serving(Site(CONTENT)) as served:
        yield served


@pytest.fixture
def target(tmp_path):
    return tmp_path / "teachers" / "net.pkl"


def names(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_whole_file(site, target):
    digest = download(Wanted(site.url, target, len(CONTENT), DIGEST))
    assert digest == DIGEST and target.read_bytes() == CONTENT
    assert names(target) == ["net.pkl"] and site.requests == [("/file", None)]


def test_without_size_and_hash_the_digest_is_told(site, target):
    site.length = False
    assert download(Wanted(site.url, target)) == DIGEST and target.read_bytes() == CONTENT


def test_a_cut_connection_continues_with_the_missing_bytes_only(site, target, impatient):
    site.cut = [100_000, 50_000]
    assert download(Wanted(site.url, target)) == DIGEST
    assert site.requests == [("/file", None), ("/file", "bytes=100000-"), ("/file", "bytes=150000-")]
    assert site.sent == len(CONTENT) and target.read_bytes() == CONTENT
    assert impatient == [1.0, 1.0], "a connection that brought something starts the count anew"


def test_a_later_command_continues(site, target):
    site.cut = [100_000]
    with pytest.raises(UserError, match=r"net\.pkl\.part keeps 0\.10 MB; the same command continues there"):
        download(Wanted(site.url, target), retries=0)
    assert names(target) == ["net.pkl.part", "net.pkl.part.json"]
    assert download(Wanted(site.url, target)) == DIGEST
    assert site.requests[-1] == ("/file", "bytes=100000-") and site.sent == len(CONTENT)
    assert names(target) == ["net.pkl"]


def test_a_part_that_was_whole_already_is_not_asked_for_again(site, target):
    site.cut = [100_000]
    with pytest.raises(UserError):
        download(Wanted(site.url, target), retries=0)
    (target.parent / "net.pkl.part").write_bytes(CONTENT)
    site.sent = 0
    assert download(Wanted(site.url, target)) == DIGEST
    assert site.sent == 0 and site.requests[-1] == ("/file", f"bytes={len(CONTENT)}-")


def test_a_server_without_ranges_restarts_cleanly(site, target, capsys):
    site.cut, site.ranges = [100_000], False
    assert download(Wanted(site.url, target, sha256=DIGEST)) == DIGEST
    assert target.read_bytes() == CONTENT and site.sent == 100_000 + len(CONTENT)
    assert "starting over" in capsys.readouterr().err


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_meanwhile_is_not_patched_together(site, target, tag):
    site.cut = [100_000]
    with pytest.raises(UserError):
        download(Wanted(site.url, target), retries=0)
    site.content, site.etag = CONTENT[::-1], tag
    download(Wanted(site.url, target))
    assert target.read_bytes() == CONTENT[::-1]


def test_a_part_of_unknown_origin_is_not_continued(site, target):
    target.parent.mkdir()
    (target.parent / "net.pkl.part").write_bytes(b"something else")
    assert download(Wanted(site.url, target)) == DIGEST and site.requests == [("/file", None)]


def test_wrong_hash(site, target):
    with pytest.raises(UserError, match=f"(?s)has the sha256.*{DIGEST}, expected is.*{'0' * 64}.*has been removed"):
        download(Wanted(site.url, target, sha256="0" * 64))
    assert names(target) == []


def test_wrong_size_is_noticed_before_anything_is_downloaded(site, target):
    with pytest.raises(UserError, match="a file of 300,000 bytes, expected are 299,999"):
        download(Wanted(site.url, target, bytes=299_999))
    assert not target.exists() and (target.parent / "net.pkl.part").stat().st_size == 0


def test_wrong_size_that_was_not_announced(site, target):
    site.length = False
    with pytest.raises(UserError, match="has 300,000 bytes, expected are 299,999"):
        download(Wanted(site.url, target, bytes=299_999))
    assert names(target) == []


@pytest.mark.parametrize(("status", "text"), [(404, "404.*there is no such file"), (403, "403.*access is refused")])
def test_refusals_are_final_and_say_what_to_do(site, target, status, text, impatient):
    site.status = status
    with pytest.raises(UserError, match=f"(?s){text}.*put it at .*net.pkl"):
        download(Wanted(site.url, target))
    assert names(target) == [] and impatient == []


def test_a_busy_server_is_asked_again_and_then_given_up(site, target, impatient):
    site.errors = [503, 500]
    assert download(Wanted(site.url, target)) == DIGEST and impatient == [1.0, 2.0]
    target.unlink()
    site.errors = [503] * 3
    with pytest.raises(UserError, match="503.*nothing arrived"):
        download(Wanted(site.url, target), retries=2)


def test_nobody_answers(site, target, impatient):
    with serving(Site(b"")) as gone:
        url = gone.url
    with pytest.raises(UserError, match="cannot be downloaded: the connection failed.*https_proxy"):
        download(Wanted(url, target), retries=3)
    assert impatient == [1.0, 2.0, 4.0] and not target.exists()


def test_a_web_page_is_no_file(site, target):
    site.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match="a web page instead of a file"):
        download(Wanted(site.url, target))
    assert not target.exists()


def test_an_empty_answer_is_no_file(site, target):
    site.content = b""
    with pytest.raises(UserError, match="is empty"):
        download(Wanted(site.url, target))
    assert names(target) == []


def test_too_little_disk(site, target, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(UserError, match=r"has 1\.00 MB free, the download needs 0\.30 MB more"):
        download(Wanted(site.url, target))
    assert not target.exists() and site.sent < len(CONTENT) + 1


@pytest.mark.parametrize("url", ["ftp://host/file", "file:///etc/passwd", "/etc/passwd", "https:///file", "http://"])
def test_only_https(url, target):
    with pytest.raises(UserError, match="only https"):
        download(Wanted(url, target, allow_http=True))
    assert not target.parent.exists()


def test_plain_http_to_others_only_when_accepted():
    with pytest.raises(UserError, match="allow_http=true"):
        require_safe("http://example.org/file")
    require_safe("http://example.org/file", allow_http=True)
    require_safe("http://localhost:8000/file")


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/file", "http://example.org/file", "file:///etc/passwd"])
def test_redirects_to_refused_addresses(site, target, place):
    site.redirect = place
    with pytest.raises(UserError, match="sends us on to a refused address"):
        download(Wanted(site.url.replace("/file", "/elsewhere"), target))
    assert not target.exists()


def test_a_redirect_is_followed_and_continued(site, target):
    site.redirect, site.cut = site.url, [100_000]
    assert download(Wanted(site.url.replace("/file", "/elsewhere"), target)) == DIGEST
    assert site.requests[-1] == ("/file", "bytes=100000-")


def test_two_downloads_of_one_file_do_not_mix(site, target):
    target.parent.mkdir()
    refused = pytest.raises(UserError, match="being downloaded by another process")
    with module._locked(target.parent / "net.pkl.part"), refused:
        download(Wanted(site.url, target))
    assert site.requests == []


def test_a_line_of_progress_tells_rate_and_time_left():
    progress = ByteProgress("net.pkl", 200_000_000, start=20_000_000)
    progress.count = 100_000_000
    assert progress.line(10.0) == "net.pkl 100.0 of 200.0 MB (50 %), 8.0 MB/s, 0:12 left"
    assert ByteProgress("x", None).line(1.0) == "x 0.0 MB, 0.0 MB/s"
    assert (megabytes(812), megabytes(1_500_000), megabytes(223_100_000)) == ("812 bytes", "1.50 MB", "223.1 MB")


def test_nothing_is_left_of_a_download_that_never_began(tmp_path):
    wanted = Wanted("http://127.0.0.1:9/net.pkl", tmp_path / "net.pkl")
    with pytest.raises(UserError, match="cannot be downloaded"):
        download(wanted, retries=0, timeout=5)
    assert [file.name for file in tmp_path.iterdir() if file.stat().st_size == 0] == []
