"""`disback fetch` from a server on this machine, and `disback inspect`, as commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from disback_command import Workplace, refused, succeeded

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("denoisers", "runtime")]
from file_server import Site, serving  # noqa: E402
from nvidia_files import tiny_denoiser, write_nvidia_pickle  # noqa: E402

TEACHER = """\
_target_: disback_cli.denoisers.teachers.edm
name: tiny
path: null
folder: teachers
official:
  files: [{{name: tiny.pkl, url: "{url}", sha256: null, bytes: null}}]
  parameters: {parameters}
  licence: MIT
sampler: {{steps: 2}}
"""


@pytest.fixture
def fetching(workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A workplace with a teacher whose official file lies on a server."""
    net = tiny_denoiser()
    content = write_nvidia_pickle(tmp_path / "served.pkl", net).read_bytes()
    with serving(Site(content)) as site:
        (workplace.folder / "conf" / "teacher").mkdir(parents=True)
        parameters = sum(parameter.numel() for parameter in net.parameters())
        text = TEACHER.format(url=site.url, parameters=parameters)
        (workplace.folder / "conf" / "teacher" / "tiny.yaml").write_text(text)
        yield workplace, site


def test_fetch_inspect_and_fetch_again(fetching: tuple[Workplace, Site]) -> None:
    workplace, site = fetching
    words = ("fetch", "--config-dir", "conf", "teacher=tiny")
    local = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    site.cut = [100_000]
    done = succeeded(workplace(*words, **local))
    assert site.sent == len(site.content) and site.requests[1][1] == "bytes=100000-"
    assert "(as published), samples 3 x 8 x 8" in done.stdout and "licence of the weights: MIT" in done.stderr
    assert done.stdout.splitlines()[-1] == "next: disback record teacher=tiny"
    left = sorted(file.name for file in (workplace.folder / "teachers").iterdir())
    assert left == ["tiny.pkl", "tiny.pkl.sha256"] and not (workplace.folder / "runs").exists()
    again = succeeded(workplace(*words, **local))
    assert "is there already" in again.stderr and len(site.requests) == 2
    found = succeeded(workplace("inspect", "teachers/tiny.pkl", "--json"))
    assert json.loads(found.stdout)["next"] == ["disback record teacher=edm teacher.path=teachers/tiny.pkl"]


def test_mistakes(workplace: Workplace) -> None:
    refused(workplace("fetch"), "say which teacher", "edm_cifar")
    refused(workplace("fetch", "teacher=edm_digits"), "no official file to download", "edm_cifar")
    refused(workplace("inspect", "nowhere"), "there is nothing at nowhere")
    assert "usage: disback inspect PATH" in succeeded(workplace("inspect", "--help")).stdout
