"""Damaged and malicious files of tensors end in a message, whatever byte is wrong and whatever they claim to hold."""

import io
import json
import random
import warnings
import zipfile

import pytest
import torch
from nvidia_files import SONG, tiny_denoiser, write_nvidia_pickle

from disback_cli.denoisers.diffusers_weights import read_weights
from disback_cli.denoisers.open_source import built_without_memory, open_source
from disback_cli.denoisers.pickles.nvidia import read_nvidia
from disback_cli.denoisers.state_dicts import read_state_dict
from disback_cli.denoisers.tensor_files import read_tensor_file
from disback_cli.denoisers.torch_files import load_tensors
from disback_cli.errors import UserError
from disback_cli.inspection.recognise import inspect

SMALLEST = SONG | {"img_resolution": 4, "img_channels": 1, "model_channels": 8, "channel_mult": [1]}
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3, dtype=torch.float16)}


def saved(content, *, archive=True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def rewritten(data: bytes, change, compression=zipfile.ZIP_STORED) -> bytes:
    """An archive with its pickle changed, its entries stored in another way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [True, False])
def test_a_whole_file_is_read_without_a_word(tmp_path, archive):
    (tmp_path / "x.bin").write_bytes(saved({"ema": STATE}, archive=archive))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = load_tensors(tmp_path / "x.bin")
    assert all(torch.equal(content["ema"][name], tensor) for name, tensor in STATE.items())


def readers(path):
    """Every way in which a file of torch.save is read."""
    folder = path.parent / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "diffusion_pytorch_model.bin").write_bytes(path.read_bytes())
    return [lambda: read_tensor_file(path), lambda: read_state_dict(path), lambda: read_weights(folder)]


MORE = bytes([0x80, 2, 0x5D, 0x71, 0, 0x58, 0xFF, 0xFF, 0xFF, 0x7F])
DAMAGED = {
    "compressed": (rewritten(saved(STATE), bytes, zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
    "empty-stack": (rewritten(saved(STATE), lambda pickle: b"\x80\x02s."), "not a whole file of torch.save"),
    "nothing": (rewritten(saved(STATE), lambda pickle: b""), "no whole file|not a whole file"),
    "endless-text": (rewritten(saved(STATE), lambda pickle: MORE), "no whole file|not a whole file"),
    "other-key": (rewritten(saved(STATE), lambda p: p.replace(b"X\x01\0\0\x000", b"X\x01\0\0\x009")), "whole file"),
    "nested": (rewritten(saved(STATE), lambda p: b"\x80\x02" + b"]" * 9**5 + b"a" * (9**5 - 1) + b"."), None),
    "old-cut": (saved(STATE, archive=False)[:-8], "not a whole file of torch.save"),
    "cut": (saved(STATE)[:-50], "not a whole file of torch.save|cut short or damaged"),
    "text": (b"hello", r"is not a whole file of torch.save \(KeyError: 101\): copy it again"),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_damaged_files_of_tensors(tmp_path, fault):
    data, message = DAMAGED[fault]
    (tmp_path / "x.bin").write_bytes(data)
    for index, read in enumerate(readers(tmp_path / "x.bin")):
        if message is None and index == 0:
            read()  # deep, but nothing that is walked
            continue
        with pytest.raises(UserError, match=message):
            read()


def test_entries_that_share_their_bytes(tmp_path):
    """Thousands of names of one large entry would otherwise become as many tensors."""
    data = bytearray(saved({"a": torch.zeros(4096), "b": torch.ones(1)}))
    first, second = data.rindex(b"archive/data/0") - 46, data.rindex(b"archive/data/1") - 46
    for field in (20, 24, 42):  # both sizes and the offset, in the archive's directory
        data[second + field : second + field + 4] = data[first + field : first + field + 4]
    (tmp_path / "x.bin").write_bytes(bytes(data))
    with pytest.raises(UserError, match="the entries of its archive overlap, so it is damaged"):
        load_tensors(tmp_path / "x.bin")


def test_a_program_is_not_run(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pt"))
    for read in readers(tmp_path / "x.pt"):
        with pytest.raises(UserError, match="TorchScript program: to read it is to execute it, which is never done"):
            read()


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_small_archive_is_not_unpacked_into_a_large_one(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", compression) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
        archive.writestr("archive/version", "3")
    for read in (open_source, inspect):
        with pytest.raises(UserError, match="archive/data.pkl in it is compressed, as torch.save never does"):
            read(str(tmp_path / "bomb.pt"))


@pytest.mark.parametrize("method", [0, 99])
def test_a_wrong_byte_in_the_pickle_of_an_archive(tmp_path, method):
    path = write_nvidia_pickle(tmp_path / "net.pkl", tiny_denoiser(SMALLEST), storage="zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"EDMPrecond")] ^= 1
    if method:  # of compression, unknown
        position = data.index(b"PK\1\2")
        data[position + 10] = method
    path.write_bytes(bytes(data))
    for read in (open_source, inspect):
        with pytest.raises(UserError, match=r"cannot be read \(Bad CRC|is compressed"):
            read(str(path))


@pytest.mark.parametrize("shape", [(0, 1 << 61, 1 << 61), (1 << 61, 1 << 61, 0), (0, 1 << 50)])
def test_an_empty_tensor_of_impossible_shape(tmp_path, shape):
    denoiser = tiny_denoiser(SMALLEST)
    denoiser.register_buffer("extra", torch.zeros(0, 3, 5)[:, :, : len(shape) - 1])
    path = write_nvidia_pickle(tmp_path / "net.pkl", denoiser, protocol=2)
    data = path.read_bytes()
    # (0, 3, 2) or (0, 3, 1) as the pickle writes it: K 0 K 3 K n, TUPLE3
    old = b"K\0K\x03K" + bytes([len(shape) - 1]) + b"\x87"
    assert data.count(old) == 1
    new = b"".join(b"K\0" if not n else b"\x8a" + bytes([9]) + n.to_bytes(9, "little") for n in shape)
    new += b"\x87" if len(shape) == 3 else b"K\x01\x87"
    path.write_bytes(data.replace(old, new))
    with pytest.raises(UserError, match=r"a tensor of shape .* cannot exist: the file is damaged"):
        read_nvidia(path)


def damage(data: bytes, rng: random.Random) -> bytes:
    """One to four wrong bytes, mostly where the structure is, or an end that is missing."""
    changed = bytearray(data)
    if rng.random() < 0.15:
        return bytes(changed[: rng.randrange(1, len(changed))])
    for _ in range(rng.choice([1, 1, 2, 4])):
        position = rng.choice([rng.randrange(len(data)), rng.randrange(4000), -rng.randrange(2000)]) % len(data)
        changed[position] = rng.randrange(256) if rng.random() < 0.5 else changed[position] ^ 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("form", ["inplace", "zip", "legacy", "plain", "plain-old"])
def test_whatever_byte_is_wrong(tmp_path, form):
    """Each file is either read or refused with a message; 120 damages of each form."""
    path = tmp_path / "net.pt"
    if form.startswith("plain"):
        path.write_bytes(saved({"model": STATE, "x": [1, {"a": (1, 2)}]}, archive=form == "plain"))
    else:
        write_nvidia_pickle(path, tiny_denoiser(SMALLEST), storage=form)
    whole, rng = path.read_bytes(), random.Random(form)
    outcomes = set()
    for _ in range(120):
        path.write_bytes(damage(whole, rng))
        for read in (
            lambda: built_without_memory(open_source(path)),
            lambda: inspect(str(path)),
            lambda: read_state_dict(path),
        ):
            try:
                read()
                outcomes.add("read")
            except UserError as error:
                assert str(path) in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_bottomless_description_of_a_diffusers_folder(tmp_path):
    deep = json.dumps({"_class_name": "UNet2DModel", "x": 0}).replace("0", "[" * 900 + "]" * 900)
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(UserError, match="config.json is nested"):
        open_source(tmp_path)
