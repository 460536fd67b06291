"""Pickles that want to do harm: each with words that the refusal must contain."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from nvidia_files import PersistentObject, dump

MANY = 1_000_000
TEN_GB = 10 * 2**30


def named(module: str, name: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    """LONG1."""
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def tuple_of(*entries: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(entries) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    """REDUCE."""
    return function + tuple_of(*arguments) + b"R"


def whole(body: bytes, protocol: int = 2) -> bytes:
    """A pickle of one object."""
    return b"\x80" + bytes([protocol]) + body + b"."


class _Runs:
    """Reduces to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def running(canary: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that create the file ``canary`` when Python's own reader reads them."""
    import builtins
    import os
    import posix
    import subprocess

    shell, code = f"touch {canary}", f"open({canary!r}, 'w')"
    call_system = call(named("posix", "system"), text(shell))
    inner = pickle.dumps(_Runs(os.system, shell), 2)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", whole(call_system))
        archive.writestr("archive/version", "3\n")
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    legacy += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    load = named("torch.storage", "_load_from_bytes")
    get, imported = named("builtins", "getattr"), call(named("builtins", "__import__"), text("os"))
    files = {
        f"system_protocol_{protocol}": (pickle.dumps(_Runs(os.system, shell), protocol), "posix.system")
        for protocol in range(6)
    }
    files |= {
        "os_system": (whole(call(named("os", "system"), text(shell))), "os.system"),
        "eval": (pickle.dumps(_Runs(builtins.eval, code)), "builtins.eval"),
        "exec": (pickle.dumps(_Runs(builtins.exec, code)), "builtins.exec"),
        "popen": (pickle.dumps(_Runs(subprocess.Popen, ["touch", canary])), "subprocess.Popen"),
        "posix": (pickle.dumps(_Runs(posix.system, shell)), "posix.system"),
        "inside_a_list": (whole(b"](" + integer(1) + call_system + b"e"), "posix.system"),
        "as_a_key": (whole(b"}" + call_system + integer(1) + b"s"), "posix.system"),
        "dropped_again": (whole(call_system + b"0]"), "posix.system"),
        "nested_reduce": (whole(call(named("builtins", "print"), call_system)), "builtins.print"),
        "inst": (whole(b"(" + text(shell) + b"iposix\nsystem\n"), "posix.system"),
        "obj": (whole(b"(" + named("posix", "system") + text(shell) + b"o"), "posix.system"),
        "getattr": (
            whole(call(call(get, imported, text("system")), text(shell))),
            "builtins.getattr",
        ),
        "attrgetter": (
            whole(call(call(call(named("operator", "attrgetter"), text("system")), imported), text(shell))),
            "operator.attrgetter",
        ),
        "partial": (
            whole(call(call(named("functools", "partial"), named("posix", "system"), text(shell)))),
            "functools.partial",
        ),
        "dotted_name": (
            b"\x80\x04" + text("numpy") + text("dtype.__class__") + b"\x93" + tuple_of(text("x")) + b"R.",
            "numpy.dtype.__class__",
        ),
        "inner_pickle": (whole(call(load, b"B" + struct.pack("<I", len(inner)) + inner)), "posix.system"),
        "inner_zip": (
            whole(call(load, b"B" + struct.pack("<I", len(zipped.getvalue())) + zipped.getvalue())),
            "posix.system",
        ),
        "inner_legacy": (
            whole(call(load, b"B" + struct.pack("<I", len(legacy + inner)) + legacy + inner)),
            "posix.system",
        ),
        "torch_save_zip": (zipped.getvalue(), "posix.system"),
        "torch_save_legacy": (legacy + inner, "posix.system"),
        "module_source": (dump({"G": PersistentObject("G", {}, source=code)}), "no network"),
    }  # fmt: skip
    return files


def misusing() -> dict[str, tuple[bytes, str]]:
    """Pickles that use allowed globals, or none, in ways that no honest file does."""
    dtype, array = named("numpy", "dtype"), named("numpy.core.multiarray", "_reconstruct")
    f8 = call(dtype, text("f8"), b"\x89", b"\x88")
    ndarray = call(array, named("numpy", "ndarray"), tuple_of(integer(0)), text("b"))
    state = (integer(1), tuple_of(integer(3)), f8, b"\x89")
    rebuild, ordered = named("torch._utils", "_rebuild_tensor_v2"), named("collections", "OrderedDict") + b")R"
    persistent = named("torch_utils.persistence", "_reconstruct_persistent_obj")
    module = named("torch.nn.modules.container", "ModuleDict") + b")\x81"
    files = {
        "reconstructor": (
            whole(call(named("copyreg", "_reconstructor"), named("builtins", "object"), b"N")),
            "copyreg._reconstructor",
        ),
        "booby_trap": (whole(named("booby_trap", "anything")), "booby_trap.anything"),
        "stack_global_of_numbers": (whole(integer(1) + integer(2) + b"\x93"), "no text"),
        "call_of_a_dict": (whole(b"})R"), "not callable"),
        "call_of_a_string": (whole(text("os.system") + b")R"), "not callable"),
        "call_with_a_list": (whole(named("collections", "OrderedDict") + b"]R"), "instead of a tuple"),
        "keywords": (whole(dtype + b")}" + text("a") + integer(1) + b"s\x92"), "keywords"),
        "state_of_a_list": (whole(b"]}" + text("__class__") + dtype + b"sb"), "a state"),
        "state_of_a_class": (whole(dtype + b"}" + text("call") + integer(1) + b"sb"), "a state"),
        "state_of_a_tensor_class": (whole(rebuild + b"}b"), "a state"),
        "append_to_a_tuple": (whole(b")" + integer(1) + b"a"), "no list"),
        "items_of_a_list": (whole(b"]" + integer(1) + integer(2) + b"s"), "no dictionary"),
        "add_to_a_list": (whole(b"](K\x01\x90"), "no set"),
        "tuple_as_key": (whole(b"})" + integer(2) + b"s"), "can be keys"),
        "set_of_lists": (whole(b"\x8f(]\x90"), "can be keys"),
        "odd_items": (whole(b"(K\x01d"), "lacks its value"),
        "class_as_data": (whole(b"]" + dtype + b"a"), "numpy.dtype"),
        "extension_1": (whole(b"\x82\x01"), "copyreg"),
        "extension_2": (whole(b"\x83\x01\x00"), "copyreg"),
        "extension_4": (whole(b"\x84\x01\x00\x00\x00"), "copyreg"),
        "persistent_id": (whole(b"Pos.system\n", 0), "outside the pickle"),
        "binary_persistent_id": (whole(text("x") + b"Q"), "outside the pickle"),
        "next_buffer": (whole(b"\x97", 5), "buffers"),
        "readonly_buffer": (whole(b"N\x98", 5), "buffers"),
        "codec": (whole(call(named("_codecs", "encode"), text("abc"), text("rot13"))), "_codecs.encode"),
        "huge_bytes_call": (whole(call(named("builtins", "bytes"), integer(TEN_GB))), "calls bytes"),
        "object_dtype": (whole(call(dtype, text("O"), b"\x89", b"\x88")), "only numbers"),
        "object_array": (
            whole(ndarray + tuple_of(*state[:2], call(dtype, text("O8"), b"\x89", b"\x88"), b"\x89", b"]") + b"b"),
            "only numbers",
        ),
        "void_dtype": (whole(call(dtype, text("V8"), b"\x89", b"\x88")), "only numbers"),
        "dtype_with_fields": (
            whole(f8 + tuple_of(b"K\3", text("<"), b"N", tuple_of(text("a")), b"N", *[integer(-1)] * 2, b"K\0") + b"b"),
            "a state",
        ),
        "array_of_a_list": (whole(ndarray + tuple_of(*state, b"]") + b"b"), "written as bytes"),
        "array_too_short": (whole(ndarray + tuple_of(*state, b"C\x08" + bytes(8)) + b"b"), "shape [3]"),
        "array_negative": (
            whole(ndarray + tuple_of(b"K\1", tuple_of(integer(-1)), f8, b"\x89", b"C\0") + b"b"),
            "a state",
        ),
        "array_without_state": (whole(ndarray), "bare numpy.ndarray"),
        "array_of_another_class": (whole(call(array, dtype, b")", text("b"))), "numpy _reconstruct"),
        "scalar_too_long": (whole(call(named("numpy.core.multiarray", "scalar"), f8, b"C\x01a")), "1 bytes"),
        "tensor_of_nothing": (
            whole(call(rebuild, b"N", b"K\0", b")", b")", b"\x89", ordered)),
            "_rebuild_tensor_v2",
        ),
        "persistent_function": (whole(call(persistent, b"}" + text("type") + text("func") + b"s")), "not a class"),
        "persistent_without_state": (
            whole(call(persistent, b"}" + text("type") + text("class") + b"s")),
            "without class name",
        ),
        "module_in_itself": (
            whole(module + b"q\x01}" + text("_modules") + b"}" + text("a") + b"h\x01ssb"),
            "contains itself",
        ),
        "module_with_a_number": (
            whole(module + b"}" + text("_parameters") + b"}" + text("a") + b"K\x01ssb"),
            "_parameters",
        ),
        "list_in_itself": (whole(b"]q\x00h\x00a"), "contains itself"),
        "dict_in_itself": (whole(b"}q\x00" + text("a") + b"h\x00s"), "contains itself"),
        "tuple_in_itself": (whole(b"]q\x00h\x00\x85a"), "contains itself"),
        "stream_in_a_stream": (_stream_in_a_stream(), "torch.storage._load_from_bytes"),
        "trailing": (whole(b"]") + b"x", "follow the pickle"),
        "two_objects": (whole(b"]]"), "unfinished"),
        "open_mark": (whole(b"(]"), "unfinished"),
        "nothing": (whole(b""), "unfinished"),
        "protocol_9": (whole(b"]", 9), "protocol 9"),
        "text_file": (b"hello, this is no pickle\n", "does not begin like a pickle"),
        "unknown_reference": (whole(b"h\x05"), "object 5"),
        "negative_reference": (whole(b"]p-1\n"), "no reference"),
        "unmatched_mark": (whole(b"t"), "lacks its mark"),
        "no_operand": (whole(b"a"), "lacks its operand"),
        "bad_text": (whole(b"X\x02\0\0\0\xff\xff"), "not utf-8"),
        "half_a_character": (whole(b"V\\ud800\n"), "not raw_unicode_escape"),
        "huge_written_number": (whole(b"I" + b"9" * 3000 + b"\n"), "longer than any"),
    }  # fmt: skip
    return files


def exhausting() -> dict[str, tuple[bytes, str]]:
    """Small files that ask for a lot of memory, time or stack."""
    huge = struct.pack("<Q", TEN_GB)
    array = call(
        named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), tuple_of(integer(0)), text("b")
    )
    u1 = call(named("numpy", "dtype"), text("u1"), b"\x89", b"\x88")
    module = named("torch.nn.modules.container", "ModuleDict")
    doubling = b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(99))
    files = {
        "bytes_10gb": (whole(b"\x8e" + huge, 4), "10,737,418,240 bytes should follow"),
        "bytearray_10gb": (whole(b"\x96" + huge, 5), "10,737,418,240 bytes should follow"),
        "text_10gb": (whole(b"\x8d" + huge, 4), "10,737,418,240 bytes should follow"),
        "frame_10gb": (whole(b"\x95" + huge, 4), "frame of 10,737,418,240"),
        "bytes_4gb": (whole(b"B\xff\xff\xff\xff"), "4,294,967,295 bytes should follow"),
        "text_4gb": (whole(b"X\xff\xff\xff\xff"), "4,294,967,295 bytes should follow"),
        "long_2gb": (whole(b"\x8b\xff\xff\xff\x7f"), "2,147,483,647 bytes"),
        "long_negative": (whole(b"\x8b\xff\xff\xff\xff"), "-1 bytes should follow"),
        "python2_text_negative": (whole(b"T\xff\xff\xff\xff"), "-1 bytes should follow"),
        "array_10gb": (
            whole(array + tuple_of(integer(1), tuple_of(integer(TEN_GB)), u1, b"\x89", b"C\0") + b"b"),
            "shape [10737418240]",
        ),
        "array_of_overflowing_size": (
            whole(array + tuple_of(integer(1), tuple_of(integer(2**40), integer(2**40)), u1, b"\x89", b"C\0") + b"b"),
            "the pickle is damaged",
        ),
        "deep_lists": (whole(b"]" * MANY + b"a" * (MANY - 1)), "nested more than"),
        "deep_tuples": (whole(b")" + b"\x85" * MANY), "nested more than"),
        "deep_dicts": (whole(b"}" + b"K\0}" * (MANY // 3) + b"s" * (MANY // 3)), "nested more than"),
        "deep_modules": (
            whole(module + b"q\0" + b")\x81}" + (text("a") + b"h\0)\x81}") * 100_000 + b"bs" * 100_000 + b"b"),
            "nested more than",
        ),
        "deep_reductions": (
            whole(named("builtins", "set") + b"q\0" + b"h\0" * MANY + b")R" + b"\x85R" * (MANY - 1)), "calls set",
        ),
        "deep_behind_shortcuts": (
            whole(b"(]q\0" + b"]h\0aq\0" * 2000 + b"t"), "nested more than",
        ),
        "many_marks": (whole(b"(" * 4 * MANY), "operations"),
        "many_lists": (whole(b"]" * 4 * MANY), "operations"),
        "many_sets": (whole(b"\x8f" * 4 * MANY), "operations"),
        "many_references": (whole(b"]" + b"\x94" * 4 * MANY, 4), "operations"),
        "memo_bomb": (whole(b"(]q\0" + doubling + b"t"), "refers to itself too often"),
        "memo_bomb_of_tuples": (
            whole(b"()q\0" + doubling.replace(b"](", b"(").replace(b"eq", b"tq") + b"t"),
            "refers to itself too often",
        ),
        "set_bomb": (
            whole(b"](" + b"K\1" * 1000 + b"e\x85q\0" + (named("builtins", "set") + b"h\0R0") * 5000), "operations",
        ),
        "array_bomb": (
            # One long text, and many arrays of it.
            whole(b"B" + struct.pack("<I", MANY) + bytes(MANY) + b"q\0](" + (
                array + tuple_of(integer(1), tuple_of(integer(MANY)), u1, b"\x89", b"h\0") + b"b"
            ) * 100 + b"e\x86"),
            "several times the size",
        ),
    }  # fmt: skip
    return files


def bad_tensors() -> dict[str, tuple[bytes, str]]:
    """Tensors whose numbers are not where the file says, in both storage forms."""
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    ordered = named("collections", "OrderedDict") + b")R"

    def tensor(storage: bytes, offset: int, size: list[int], stride: list[int]) -> bytes:
        numbers = [b"".join(integer(entry) for entry in entries) for entries in (size, stride)]
        return call(
            rebuild, storage, integer(offset), *(b"(" + entries + b"t" for entries in numbers), b"\x89", ordered
        )

    def inplace(numel: int, declared: int | None = None, saved: int | None = None, cut: int = 0) -> bytes:
        stream = stored(numel, declared, saved)
        stream = stream[: len(stream) - cut]
        return call(named("torch.storage", "_load_from_bytes"), b"B" + struct.pack("<I", len(stream)) + stream)

    def stored(numel: int, declared: int | None, saved: int | None) -> bytes:
        identity = tuple_of(
            text("storage"), named("torch", "FloatStorage"), text("1"), text("cpu"),
            integer(numel if declared is None else declared), b"N",
        )  # fmt: skip
        stream = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        stream += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
        stream += whole(identity + b"Q") + pickle.dumps(["1"], 2)
        return stream + struct.pack("<q", numel if saved is None else saved) + bytes(4 * numel)

    def zipped(numel: int, body: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", whole(body))
            archive.writestr("archive/data/0", bytes(4 * numel))
        return buffer.getvalue()

    def identity(numel: int, key: str = "0") -> bytes:
        parts = (text("storage"), named("torch", "FloatStorage"), text(key), text("cpu"), integer(numel))
        return tuple_of(*parts) + b"Q"

    compressed = io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", whole(tensor(identity(MANY), 0, [MANY], [1])))
        archive.writestr("archive/data/0", bytes(4 * MANY))
    in_place = {
        "too_long": ([7], [1], 0),
        "offset": ([6], [1], 1),
        "stride": ([3], [3], 0),
        "repeated": ([1 << 40], [0], 0),
        "two_axes": ([2, 4], [3, 1], 0),
        "huge_stride": ([2], [1 << 61], 0),
        "empty_beyond": ([0], [1], 7),
    }
    views = {
        f"view_{name}": (whole(tensor(inplace(6), offset, size, stride)), "reaches beyond its storage")
        for name, (size, stride, offset) in in_place.items()
    }
    return views | {
        "view_negative_size": (whole(tensor(inplace(6), 0, [-1], [1])), "_rebuild_tensor_v2"),
        "view_negative_stride": (whole(tensor(inplace(6), 5, [6], [-1])), "_rebuild_tensor_v2"),
        "view_negative_offset": (whole(tensor(inplace(6), -1, [1], [1])), "_rebuild_tensor_v2"),
        "view_overflowing": (whole(tensor(inplace(6), 0, [1 << 63], [1])), "_rebuild_tensor_v2"),
        "view_axes_differ": (whole(tensor(inplace(6), 0, [2, 3], [1])), "_rebuild_tensor_v2"),
        "storage_cut": (whole(tensor(inplace(6, cut=4), 0, [6], [1])), "truncated or damaged"),
        "storage_declares_more": (whole(tensor(inplace(6, declared=7), 0, [7], [1])), "7 numbers should follow"),
        "storage_10gb": (
            whole(tensor(inplace(6, declared=TEN_GB, saved=TEN_GB), 0, [TEN_GB], [1])), "truncated or damaged",
        ),
        "storage_negative": (whole(tensor(inplace(6, declared=-6), 0, [6], [1])), "not known"),
        "storage_saves_other": (whole(tensor(inplace(6, saved=5), 0, [5], [1])), "5 are announced"),
        "storage_as_value": (whole(b"]" + inplace(6) + b"a"), "bare a torch storage"),
        "zip_storage_short": (zipped(5, tensor(identity(6), 0, [6], [1])), "20 bytes instead of 24"),
        "zip_storage_missing": (zipped(5, tensor(identity(5, "7"), 0, [5], [1])), "missing"),
        "zip_storage_twice": (
            zipped(5, b"(" + tensor(identity(5), 0, [5], [1]) + tensor(identity(4), 0, [4], [1]) + b"t"), "two ways",
        ),
        "zip_view": (zipped(5, tensor(identity(5), 1, [5], [1])), "reaches beyond its storage"),
        "zip_compressed": (compressed.getvalue(), "compressed"),
        "zip_cut": (zipped(5, tensor(identity(5), 0, [5], [1]))[:-30], "truncated"),
        "zip_of_something_else": (_plain_zip(), "torch.save did not write"),
        "zip_storage_of_bools": (_bad_bools(), "truth values"),
    }  # fmt: skip


def _stream_in_a_stream() -> bytes:
    """A storage inside a storage inside ...: reading them one inside the other would need stack for each."""
    header = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    header += pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    stream = b""
    for _ in range(2000):
        body = b"B" + struct.pack("<I", len(stream)) + stream
        stream = header + whole(call(named("torch.storage", "_load_from_bytes"), body))
    return stream


def _plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    return buffer.getvalue()


def _bad_bools() -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.tensor([0, 1, 1, 0], dtype=torch.bool), buffer)
    content = buffer.getvalue()
    position = content.rindex(b"\x00\x01\x01\x00", 0, content.rindex(b"PK\x05\x06"))
    return content[:position] + b"\x00\x07\x01\x00" + content[position + 4 :]
