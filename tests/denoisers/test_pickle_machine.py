"""The pickle interpreter: it reads what was written, and neither runs nor allocates what a file asks for."""

import json
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_pickles import bad_tensors, exhausting, misusing, running, whole
from nvidia_files import SONG, PersistentObject, dump, tiny_denoiser, write_nvidia_pickle

from disback_cli.denoisers.pickles.numpy_objects import read_plain_pickle
from disback_cli.denoisers.pickles.objects import Reading, plain_globals
from disback_cli.denoisers.pickles.torch_objects import read_torch, torch_globals

MEGABYTES = 700
PLAIN = {
    "none": None, "yes": True, "no": False, "small": 5, "word": 60_000, "negative": -3, "large": 2**70, "float": 0.1,
    "text": "größe 🎈", "long text": "x" * 70_000, "bytes": b"\x00\xff", "long bytes": b"y" * 70_000,
    "list": [1, [2, (3, ())], {}], "tuples": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "set": {1, "a"},
    "frozen": frozenset({2}), "ordered": OrderedDict(a=1, b=[2]), 7: "number as key", b"k": "bytes as key",
    "many": list(range(3000)), "escaped": "a\nb\\c",
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile() -> dict[str, tuple[bytes, str]]:
    """All hostile files that run nothing even in Python's own reader."""
    return misusing() | exhausting() | bad_tensors()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, hostile) -> dict[str, Any]:
    """What happened to all hostile files, and to mutilated honest ones, in a process with little memory."""
    folder = tmp_path_factory.mktemp("untrusted")
    canary = folder / "canary"
    files = hostile | running(str(canary))
    for name, (content, _) in files.items():
        (folder / f"{name}.pkl").write_bytes(content)
    (folder / "booby_trap.py").write_text(f"open({str(canary)!r}, 'w')\n")
    small = PersistentObject("Net", {
        "_init_args": (1, 2.5), "_init_kwargs": {"a": np.float64(0.5), "b": [1, None, "x"]},
        "_parameters": {"w": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))},
        "_buffers": {"f": torch.ones(2, dtype=torch.float16), "array": None},
        "_modules": OrderedDict(inner=torch.nn.ModuleDict()), "scale": np.arange(3, dtype=">i4"),
    })  # fmt: skip
    (folder / "small_inplace.valid").write_bytes(dump({"ema": small}))
    (folder / "small_zip.valid").write_bytes(dump({"ema": small}, "zip"))
    tiny = SONG | {"img_resolution": 4, "model_channels": 8, "channel_mult": [1], "attn_resolutions": []}
    write_nvidia_pickle(folder / "network.valid", tiny_denoiser(tiny))
    child = [sys.executable, str(Path(__file__).with_name("read_untrusted.py")), str(folder), str(MEGABYTES)]
    done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout) | {"canary": canary.exists(), "files": files}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_round_trips(protocol):
    # Protocol 0 writes texts as lines, and frozen sets need a global before protocol 4.
    left_out = {"long text", "long bytes", "frozen"} if protocol == 0 else {"frozen"} if protocol < 4 else set()
    content = pickle.dumps({key: value for key, value in PLAIN.items() if key not in left_out}, protocol)
    expected = pickle.loads(content)
    found = read_plain_pickle(content)
    assert found == expected
    assert [type(value) for value in found.values()] == [
        dict if isinstance(value, OrderedDict) else type(value) for value in expected.values()
    ]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", ">f4", ">i2", "complex64"]
)
def test_arrays_and_numpy_numbers_round_trip(protocol, dtype):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = {
        "c": values, "f": np.asfortranarray(values), "empty": values[:0], "0d": values[0, 0, 1:2].reshape(()),
        "scalar": values[1, 2, 3],
    }  # fmt: skip
    found = read_plain_pickle(pickle.dumps(content, protocol))
    for name in ("c", "f", "empty", "0d"):
        assert found[name].dtype == values.dtype.newbyteorder("=") and found[name].shape == content[name].shape
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].flags.owndata and found[name].flags.writeable
    assert found["scalar"] == values[1, 2, 3] and not isinstance(found["scalar"], np.generic)


def test_array_referred_to_twice_is_one_array():
    array = np.arange(4)
    found = read_plain_pickle(pickle.dumps([array, array, (array,)]))
    assert found[0] is found[1] is found[2][0]


def test_batch_written_by_python_2():
    """CIFAR-10's layout: byte strings for keys and for the array's content, dtype('u1', 0, 1), the old module names."""
    pixels = bytes(range(256)) * 24
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03(cnumpy\nndarray\nq\x04K\x00\x85U\x01btRq\x05(K\x01K\x02M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x06(U\x02u1K\x00K\x01tRq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    batch = whole(
        b"}q\x01(U\x06labelsq\x02](K\x06K\x09eU\x04data" + array + b"U\x09filenames](U\x05a.pngU\x05\xe9.pngeu"
    )
    found = read_plain_pickle(batch)
    assert list(found) == ["labels", "data", "filenames"]
    assert found["labels"] == [6, 9] and found["filenames"] == ["a.png", "é.png"]
    assert found["data"].dtype == np.uint8 and found["data"].shape == (2, 3072) and found["data"].tobytes() == pixels
    expected = pickle.loads(batch, encoding="latin1")
    np.testing.assert_array_equal(found.pop("data"), expected.pop("data"))
    assert found == expected


def test_new_and_old_module_names_of_numpy():
    content = pickle.dumps({"a": np.arange(3), "b": np.float32(2.5)}, 3)
    old = content.replace(b"cnumpy._core.", b"cnumpy.core.")
    new = content.replace(b"cnumpy.core.", b"cnumpy._core.")
    assert old != new
    for variant in (old, new):
        found = read_plain_pickle(variant)
        assert found["a"].tolist() == [0, 1, 2] and found["b"] == 2.5


@pytest.mark.parametrize("storage", ["inplace", "zip", "legacy"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_round_trip(storage, dtype):
    base = torch.arange(24).reshape(4, 6)
    base = (base % 2 == 0) if dtype == torch.bool else base.to(dtype)
    tensors = {"whole": base, "transposed": base.t(), "part": base[1:, 2:4], "empty": base[:0], "number": base[2, 3]}
    content = memoryview(dump(tensors, storage))
    reading = Reading("x", len(content))
    found = read_torch(content, reading, torch_globals(reading) | plain_globals(reading))
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype and torch.equal(found[name], tensor), name


def test_control_the_payloads_work_in_pythons_own_reader(tmp_path):
    """Otherwise the next tests prove nothing."""
    canary = tmp_path / "canary"
    payloads = running(str(canary))
    worked = []
    for name in (
        "system_protocol_0",
        "system_protocol_5",
        "eval",
        "exec",
        "inside_a_list",
        "inst",
        "getattr",
        "partial",
    ):
        pickle.loads(payloads[name][0])
        worked += [name] if canary.exists() else []
        canary.unlink(missing_ok=True)
    assert len(worked) == 8


def test_nothing_ran(outcomes):
    assert not outcomes["canary"]
    assert "booby_trap" not in outcomes["modules"]


def test_reading_imports_only_what_numbers_need(outcomes):
    """No module that a file names is imported by reading it."""
    assert not [name for name in outcomes["modules"] if name.startswith(("torch_utils", "dnnlib", "subprocess"))]


@pytest.mark.parametrize("group", ["running", "misusing", "exhausting", "bad_tensors"])
def test_hostile_files_are_refused_with_a_reason(outcomes, group):
    names = {"running": running("x"), "misusing": misusing(), "exhausting": exhausting(), "bad_tensors": bad_tensors()}
    problems = {}
    for name in names[group]:
        found = outcomes["results"][name]
        kind, message = found["network"]
        if kind != "refused" or outcomes["files"][name][1] not in message or f"{name}.pkl" not in message:
            problems[name] = found["network"]
        if found.get("plain", ["refused"])[0] != "refused":
            problems[name + " (plain)"] = found["plain"]
    assert not problems and len(names[group]) > 15


def test_mutilated_files_are_read_or_refused(outcomes):
    """Every truncation of small files, and random changes of single bytes."""
    for name, counts in outcomes["fuzz"].items():
        assert counts.pop("unchanged") == "read", name
        assert counts.keys() <= {"read", "refused"} and counts["refused"] > 20, counts


def test_a_file_is_not_read_twice_into_memory(tmp_path):
    """Long byte strings are views until a tensor copies them: no more than the tensors and a little is allocated."""
    tensors = {str(index): torch.ones(1 << 20) for index in range(8)}
    content = memoryview(dump(tensors))
    reading = Reading("x", len(content))
    tracemalloc.start()
    found = read_torch(content, reading, torch_globals(reading) | plain_globals(reading))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert peak < 2 << 20  # PyTorch's own memory, 32 MiB here, is not traced
