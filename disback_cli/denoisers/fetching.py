"""Official files of teachers: downloaded on request, compared with what is published, checked as a network."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disback_cli.denoisers.official import Official, OfficialFile, official_place, read_official
from disback_cli.errors import UserError
from disback_cli.files import write_bytes
from disback_cli.runtime.byte_progress import megabytes, sha256_with_progress
from disback_cli.runtime.download import Wanted, download, require_safe


@dataclass
class Fetched:
    """What has come.

    Attributes:
        place: the file or folder to open.
        unpublished: the computed hashes of files whose hash is neither published nor kept beside them.
    """

    place: Path
    unpublished: dict[Path, str] = field(default_factory=dict)


def fetch_files(
    name: str, folder: str, node: Mapping[str, Any], *, allow_http: bool, retries: int, timeout: float
) -> Fetched:
    """Bring all official files of a teacher to their places; those that are there already are verified instead.

    Args:
        name: of the teacher.
        folder: the teachers' folder.
        node: ``teacher.official``.
        allow_http: whether plain http is accepted.
        retries: attempts after failures in a row.
        timeout: seconds of silence after which a connection counts as dropped.

    Returns:
        Where they are; :func:`keep_hashes` completes it once they have proved to be the network.

    Raises:
        UserError: a file cannot be had, or is not the official one.
    """
    official = read_official(node)
    root = Path(folder).expanduser()
    for file in official.files:
        require_safe(file.url, allow_http)
    _say(f"teacher={name}: {_announced(official)}")
    if official.licence is not None:
        _say(f"licence of the weights: {official.licence}")
    fetched = Fetched(official_place(folder, node))
    for file in official.files:
        target = root / file.name
        if target.is_file():
            _verify_present(file, target, fetched)
            continue
        _say(f"from {file.url}\nto   {target}")
        digest = download(
            Wanted(file.url, target, file.bytes, file.sha256, allow_http), retries=retries, timeout=timeout
        )
        _say(f"sha256 {digest}, {_published(file, digest)}")
        if file.sha256 is None:
            fetched.unpublished[target] = digest
    return fetched


def _announced(official: Official) -> str:
    size, exact = official.bytes
    files = "1 file" if len(official.files) == 1 else f"{len(official.files)} files"
    return files if size is None else f"{files}, {'' if exact else 'about '}{megabytes(size)}"


def _published(file: OfficialFile, digest: str) -> str:
    if file.sha256 == digest:
        return "as published"
    return "which cannot be compared, since none is published"


def keep_hashes(fetched: Fetched) -> None:
    """Write the hashes nobody has published beside their files, so that later changes are noticed at least."""
    for target, digest in fetched.unpublished.items():
        write_bytes(sidecar(target), f"{digest}  {target.name}\n".encode())
        _say(f"its sha256 is kept in {sidecar(target)} for later checks")


def sidecar(target: Path) -> Path:
    """The file that keeps a computed hash, in the format of ``sha256sum``."""
    return target.with_name(f"{target.name}.sha256")


def _verify_present(file: OfficialFile, target: Path, fetched: Fetched) -> None:
    size = target.stat().st_size
    advice = f"move it away and give the same command again, or use it as your own: teacher.path={target}"
    if file.bytes is not None and size != file.bytes:
        raise UserError(f"{target} is there already, but has {size:,} bytes, expected are {file.bytes:,}: {advice}")
    digest = sha256_with_progress(target)
    expected, source = file.sha256, "published"
    if expected is None:
        expected, source = _kept(target), f"in {sidecar(target).name}"
    if expected is not None and digest != expected:
        raise UserError(
            f"{target} is there already, but has the sha256\n  {digest}, the one {source} is\n  {expected}\n{advice}"
        )
    if expected is None:
        _say(f"{target} is there already, {megabytes(size)}; sha256 {digest}, {_published(file, digest)}")
        fetched.unpublished[target] = digest
    else:
        _say(f"{target} is there already, {megabytes(size)}; its sha256 is the one {source}")


def _kept(target: Path) -> str | None:
    try:
        words = sidecar(target).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0].lower() if words else None


def verify_network(place: Path, node: Mapping[str, Any]) -> str:
    """Read the network without executing the file, build it without memory, and count its parameters.

    Returns:
        What it is, for people.

    Raises:
        UserError: it is no network, its weights do not fit, or it is not the official one.
    """
    from disback_cli.denoisers.open_source import built_without_memory, open_source

    official = read_official(node)
    _say("checking it as a network; nothing in it is executed ...")
    source = open_source(place)
    denoiser = built_without_memory(source)
    count = sum(parameter.numel() for parameter in denoiser.parameters())
    if official.parameters is not None and count != official.parameters:
        raise UserError(
            f"{place} holds a network of {count:,} parameters, the official one has {official.parameters:,}: it is "
            "another file under the official name. Move it away and give the same command again, or use it as your own "
            f"with teacher.path={place}"
        )
    compared = "as published" if official.parameters is not None else "their number is not published"
    shape = " x ".join(map(str, denoiser.shape))
    return f"{source.facts.get('network')}: {count:,} parameters ({compared}), samples {shape}"


def fetchable() -> str:
    """The teachers that have official files, for people."""
    from importlib import resources

    import yaml

    names = []
    for file in sorted(resources.files("disback_cli.conf").joinpath("teacher").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("official"):
                names.append(file.name.removesuffix(".yaml"))
    return f"teachers with official files: {', '.join(names) or 'none'}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
