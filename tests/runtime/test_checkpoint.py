"""Checkpoints that are whole or absent."""

import builtins
import errno
import os

import pytest
import torch

from disback_cli import files
from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_atomically, write_json
from disback_cli.runtime.callbacks import Saving
from disback_cli.runtime.checkpoint import MANIFEST, AtomicCheckpointIO, CheckpointStore


def refuse(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def old(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    return file


def only_the_old(file) -> bool:
    return file.read_bytes() == b"old" and [f.name for f in file.parent.iterdir()] == [file.name]


def test_new_content_replaces_the_old(old):
    write_atomically(old, lambda file: file.write(b"new"))
    assert old.read_bytes() == b"new"
    assert [f.name for f in old.parent.iterdir()] == ["file"]


def test_missing_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "file", lambda file: file.write(b"x"))
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyboardInterrupt])
def test_writer_that_fails_half_way_leaves_the_old_file_and_nothing_else(old, error):
    def write(file):
        file.write(b"half")
        raise error("stop")

    with pytest.raises(error, match="stop"):
        write_atomically(old, write)
    assert only_the_old(old)


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
def test_full_disk_is_a_message_and_leaves_the_old_file(old, monkeypatch, place):
    monkeypatch.setattr(place, refuse)
    with pytest.raises(UserError, match=r"could not save .*No space left on device.*resume=auto"):
        write_atomically(old, lambda file: file.write(b"new"))
    monkeypatch.undo()
    assert only_the_old(old)


def full_device(path, *_):
    """An open file on a device that has no space: the kernel refuses when the buffer is flushed."""
    builtins.open(path, "wb").close()
    return builtins.open("/dev/full", "wb")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_checkpoint_on_a_full_disk_is_a_message(old, monkeypatch, size):
    monkeypatch.setattr(files, "open", full_device, raising=False)
    with pytest.raises(UserError, match=r"could not save .*No space left on device"):
        AtomicCheckpointIO().save_checkpoint({"x": torch.zeros(size)}, old)
    assert only_the_old(old)


def test_folder_that_cannot_be_made_is_a_message(old):
    with pytest.raises(UserError, match="could not save"):
        write_atomically(old / "below" / "file", lambda file: file.write(b"x"))
    assert only_the_old(old)


def test_checkpoint_round_trip_loads_tensors_and_plain_values_only(tmp_path):
    io = AtomicCheckpointIO()
    content = {"a": torch.arange(4.0), "b": {"c": [1, 2.5, "text", None, True]}}
    io.save_checkpoint(content, tmp_path / "x.ckpt")
    read = io.load_checkpoint(tmp_path / "x.ckpt")
    assert torch.equal(read.pop("a"), content.pop("a"))
    assert read == content
    io.remove_checkpoint(tmp_path / "x.ckpt")
    io.remove_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "x.ckpt").exists()


class Opens:
    def __reduce__(self):
        return (os.system, ("true",))


def test_checkpoint_with_pickled_code_is_not_run(tmp_path, monkeypatch):
    torch.save({"evil": Opens()}, tmp_path / "x.ckpt")
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("code of a checkpoint was run"))
    with pytest.raises(Exception, match="weights_only|Unsupported"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")


# The store --------------------------------------------------------------------------------------------------------


def fill(store: CheckpointStore, *iterations: int) -> None:
    for iteration in iterations:
        path = store.path_for(iteration)
        write_atomically(path, lambda file, i=iteration: file.write(b"content %d" % i))
        store.register(path, iteration)


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.glob("*.ckpt"))


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_are_kept(tmp_path, keep):
    store = CheckpointStore(tmp_path, keep)
    fill(store, 10, 20, 30, 40)
    expected = [10, 20, 30, 40][-keep:]
    assert [entry["iteration"] for entry in store.entries()] == expected
    assert names(tmp_path) == [store.path_for(i).name for i in expected]
    assert store.newest_whole() == store.path_for(40)
    assert store.last_good() == str(store.path_for(40))


def test_a_file_without_entry_is_not_trusted(tmp_path):
    store = CheckpointStore(tmp_path)
    fill(store, 10)
    store.path_for(20).write_bytes(b"torn")
    assert store.newest_whole() == store.path_for(10)


def test_empty_store_has_nothing_to_go_on_from(tmp_path):
    assert CheckpointStore(tmp_path / "none").newest_whole() is None
    assert CheckpointStore(tmp_path / "none").last_good() == "none was saved yet"


@pytest.mark.parametrize(
    ("damage", "word"), [(lambda f: f.write_bytes(f.read_bytes()[:-1]), "damaged"), (lambda f: f.unlink(), "missing")]
)
def test_damaged_newest_is_passed_over_with_a_warning(tmp_path, messages, damage, word):
    store = CheckpointStore(tmp_path)
    fill(store, 10, 20)
    damage(store.path_for(20))
    assert store.newest_whole() == store.path_for(10)
    assert "iteration_00000020.ckpt" in messages()
    assert word in messages()


def test_all_damaged_is_a_message(tmp_path):
    store = CheckpointStore(tmp_path)
    fill(store, 10, 20)
    for iteration in (10, 20):
        store.path_for(iteration).write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"none of the 2 checkpoints .* is whole; start over with resume=false"):
        store.newest_whole()


def test_going_back_to_an_older_checkpoint_forgets_the_later_ones(tmp_path):
    store = CheckpointStore(tmp_path, keep=5)
    fill(store, 10, 20, 30)
    fill(store, 15)
    assert [entry["iteration"] for entry in store.entries()] == [10, 15]
    assert store.newest_whole() == store.path_for(15)


def test_registering_the_same_iteration_again_replaces_it(tmp_path):
    store = CheckpointStore(tmp_path)
    fill(store, 10, 20)
    store.path_for(20).write_bytes(b"again")
    store.register(store.path_for(20), 20)
    assert [entry["iteration"] for entry in store.entries()] == [10, 20]
    assert store.entries()[1]["sha256"] == sha256_of(store.path_for(20))
    assert names(tmp_path) == [store.path_for(i).name for i in (10, 20)]


def test_named_checkpoint_is_verified(tmp_path):
    store = CheckpointStore(tmp_path)
    fill(store, 10, 20)
    assert store.verified(store.path_for(10)) == store.path_for(10)
    with pytest.raises(UserError, match="not listed"):
        store.verified(store.path_for(15))
    store.path_for(10).write_bytes(b"rubbish")
    with pytest.raises(UserError, match="is damaged"):
        store.verified(store.path_for(10))
    store.path_for(10).unlink()
    with pytest.raises(UserError, match="missing"):
        store.verified(store.path_for(10))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff\xfe\x00rubbish"], ids=repr)
def test_damaged_manifest_is_a_message(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoints\.json cannot be read"):
        CheckpointStore(tmp_path).newest_whole()


def test_full_disk_while_saving_leaves_the_last_checkpoint_to_resume_from(make_stage, fit, tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    real, calls = os.fsync, []

    def fills_up(handle):
        calls.append(handle)
        if len(calls) > 5:  # two a file and folder, checkpoint and manifest: the second checkpoint fails
            refuse()
        real(handle)

    monkeypatch.setattr("os.fsync", fills_up)
    with pytest.raises(UserError, match="No space left on device"):
        fit(make_stage(), Saving(store, every=2))
    monkeypatch.undo()
    assert store.newest_whole() == store.path_for(2)
    assert not list(tmp_path.glob(".*tmp"))
    resumed, whole = make_stage(), make_stage()
    fit(whole)
    fit(resumed, checkpoint=store.newest_whole())
    assert torch.equal(resumed.line.weight, whole.line.weight)


def test_json_is_written_readably(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2]})
    assert (tmp_path / "x.json").read_text().startswith("{\n")
