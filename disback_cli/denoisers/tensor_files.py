"""What a file of tensors holds: names, shapes and types, without loading the numbers and without executing anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from disback_cli.denoisers.sniff import content_of
from disback_cli.denoisers.torch_files import load_tensors
from disback_cli.errors import UserError

_SAFETENSORS_DTYPES = {
    "F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "I64": "int64", "I32": "int32", "U8": "uint8",
    "BOOL": "bool", "F8_E4M3": "fp8", "F8_E5M2": "fp8",
}  # fmt: skip
_TORCH_DTYPES = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_FLOATING = ("fp", "bf")
_MAX_DEPTH = 4
_SHOWN_TEXT = 80


@dataclass(frozen=True)
class Entry:
    """Shape and type of one tensor; ``dtype`` in short words: fp32, fp16, bf16, int64, ..."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


@dataclass
class TensorFile:
    """What a file holds.

    Attributes:
        tables: tensors by name, for each place in the file where there are some; the key "" is the file itself.
        others: what else there is, by its place, in short words.
        metadata: texts of a safetensors file.
    """

    tables: dict[str, dict[str, Entry]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def largest(self) -> dict[str, Entry]:
        """The table with the most numbers, empty if there is none."""
        return max(self.tables.values(), key=lambda table: sum(entry.numel for entry in table.values()), default={})


def read_tensor_file(path: Path) -> TensorFile:
    """List the tensors of a ``.safetensors`` file, or of what ``torch.save`` wrote.

    Raises:
        UserError: it is damaged, is no such file, or holds code that would have to be run.
    """
    if content_of(path) == "safetensors":
        return _read_safetensors(path)
    found = TensorFile()
    _list(load_tensors(path), "", found, 0)
    return found


def _read_safetensors(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            table = {}
            for name in file.keys():  # noqa: SIM118  a safetensors file is no mapping
                part = file.get_slice(name)
                dtype = str(part.get_dtype())
                table[name] = Entry(tuple(part.get_shape()), _SAFETENSORS_DTYPES.get(dtype, dtype.lower()))
            return TensorFile({"": table}, {}, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): copy or download it again") from error


def _list(value: Any, place: str, found: TensorFile, depth: int) -> None:
    if isinstance(value, Tensor):
        found.tables.setdefault("", {})[place or "(a single tensor)"] = _entry(value)
        return
    if not isinstance(value, Mapping) or depth > _MAX_DEPTH:
        found.others[place] = _short(value)
        return
    tensors = {str(name): _entry(item) for name, item in value.items() if isinstance(item, Tensor)}
    if tensors:
        found.tables.setdefault(place, {}).update(tensors)
    for name, item in value.items():
        if not isinstance(item, Tensor):
            _list(item, f"{place}.{name}" if place else str(name), found, depth + 1)


def _entry(tensor: Tensor) -> Entry:
    name = str(tensor.dtype).removeprefix("torch.")
    return Entry(tuple(tensor.shape), _TORCH_DTYPES.get(name, name))


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 3]}..."


def numbers_in(table: Mapping[str, Entry]) -> int:
    """How many floating-point numbers a table holds."""
    return sum(entry.numel for entry in table.values() if entry.dtype.startswith(_FLOATING))


def dtypes_in(table: Mapping[str, Entry]) -> str:
    """The types of the floating-point tensors, the most frequent (by numbers) first: ``fp32`` or ``fp16 and fp32``."""
    counts: Counter[str] = Counter()
    for entry in table.values():
        if entry.dtype.startswith(_FLOATING):
            counts[entry.dtype] += entry.numel
    return " and ".join(name for name, _ in counts.most_common()) or "no floating-point numbers"


def largest_prefixes(table: Mapping[str, Entry], count: int = 5) -> list[tuple[str, int]]:
    """The parts of a state dict that hold the most numbers, by the first two words of the names."""
    counts: Counter[str] = Counter()
    for name, entry in table.items():
        counts[".".join(name.split(".")[:2])] += entry.numel
    return counts.most_common(count)


def entries_of(tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """The same for tensors at hand."""
    return {name: _entry(tensor) for name, tensor in tensors.items()}


def guess_network(table: Mapping[str, Entry]) -> str | None:
    """What a state dict most likely belongs to, judged by its names; None if they mean nothing here."""
    return next((network for network, marks in _MARKS if _has_all(table, marks)), None)


# Parts of names that only the network in question has, with what to do about it.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("EDM2's U-Net", ("enc.", "emb_noise.weight", "emb_fourier.freqs")),
    ("EDM's DDPM++ or NCSN++ (SongUNet)", ("map_layer0.weight", "enc.", "dec.", "aux_conv.weight")),
    ("EDM's ADM (DhariwalUNet)", ("map_layer0.weight", "enc.", "dec.", "out_conv.weight")),
    ("diffusers' DiTTransformer2DModel", ("transformer_blocks.0.", "pos_embed.proj.weight", "proj_out_1.weight")),
    ("diffusers' Stable Diffusion U-Net (UNet2DConditionModel)", ("down_blocks.0.", "attn2.to_k.weight")),
    ("diffusers' UNet2DModel", ("down_blocks.0.", "mid_block.", "time_embedding.linear_1.weight")),
    ("diffusers' AutoencoderKL", ("decoder.mid_block.", "post_quant_conv.weight")),
    ("DiT or SiT in its authors' format", ("x_embedder.proj.weight", "adaLN_modulation.1.weight", "final_layer.")),
    ("OpenAI's guided diffusion or latent diffusion", ("input_blocks.0.0.weight", "time_embed.0.weight")),
    ("the DDPM of Ho et al. or its ports", ("down.0.block.0.", "temb.dense.0.weight")),
    ("Inception v3 (an FID feature network)", ("Mixed_7c.", "Conv2d_1a_3x3.")),
)  # fmt: skip


def _has_all(table: Mapping[str, Entry], marks: tuple[str, ...]) -> bool:
    names = list(_padded(table))
    return all(any(mark in name for name in names) for mark in marks)


def _padded(table: Mapping[str, Entry]) -> Iterator[str]:
    """Names with a dot before them, so that a mark that begins a part of a name cannot lie inside another word."""
    for name in table:
        yield f".{name}"
