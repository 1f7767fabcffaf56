"""The safetensors files of a Hugging Face model folder, read without torch: names, shapes, and what identifies them.

The files are those of the index where there is one, else model.safetensors; others in the folder are never read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from megatron_rl.config.checks import UserError, require
from megatron_rl.config.pretrained import read_object
from megatron_rl.config.records import Model

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# The exponents of numbers that are not finite, by the type's name and width.
EXPONENTS = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000), "F64": ("<u8", 0x7FF << 52)}
WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}  # bytes of a number
BLOCK_BYTES = 1 << 16  # of the beginning, the middle and the end of a large tensor, which tell it from another
SCANNED_BYTES = 1 << 30  # a folder of more is looked through only when it is loaded


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor lies."""

    path: Path
    dtype: str  # as safetensors writes it
    shape: tuple[int, ...]
    start: int  # its first byte in the file
    end: int


def tensor_names(model: Model) -> dict[str, tuple[int, ...]]:
    """Every tensor of a Hugging Face folder of this shape, with its shape."""
    hidden, ffn, head = model.hidden_size, model.ffn_hidden_size, model.head_dim
    query, key = model.num_heads * head, model.num_kv_heads * head
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (query, hidden),
        "self_attn.k_proj.weight": (key, hidden),
        "self_attn.v_proj.weight": (key, hidden),
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    if model.qkv_bias:
        layer |= {"self_attn.q_proj.bias": (query,), "self_attn.k_proj.bias": (key,), "self_attn.v_proj.bias": (key,)}
    if model.qk_norm:
        layer |= {"self_attn.q_norm.weight": (head,), "self_attn.k_norm.weight": (head,)}
    names: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    for i in range(model.num_layers):
        names |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    names["model.norm.weight"] = (hidden,)
    if not model.tied_embeddings:
        names["lm_head.weight"] = (model.vocab_size, hidden)
    return names


def check_tensors(folder: Path, model: Model) -> None:
    """Raises UserError unless the safetensors files of `folder` hold exactly the tensors of `model`, all finite.

    A tied model may bring a copy of the embeddings as its head. A large folder is not looked through for numbers that
    are not finite, which is done when it is loaded.
    """
    found, wanted = read_tensors(folder), tensor_names(model)
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"model folder {folder}: {_some(missing)} missing from its safetensors files")
    extra = [name for name in found if name not in wanted and not name.endswith("rotary_emb.inv_freq")]
    if model.tied_embeddings and HEAD in extra:
        require(
            _has_equal_bits(found[HEAD], found[EMBEDDING]),
            f"model folder {folder}: config.json ties {HEAD} to {EMBEDDING}, and its files hold two different ones; "
            "set tie_word_embeddings to false, or take the head out",
        )
        extra.remove(HEAD)
    if extra:
        raise UserError(f"model folder {folder}: {_some(extra)} not part of a {model.family} model of its config.json")
    for name, shape in wanted.items():
        require(
            found[name].shape == shape,
            f"model folder {folder}: tensor {name} has shape {list(found[name].shape)}, config.json says {list(shape)}",
        )
    # The launcher's environment has no numpy; loading looks at every weight in any case.
    is_small = sum(found[name].end - found[name].start for name in wanted) <= SCANNED_BYTES
    if is_small and importlib.util.find_spec("numpy") is not None:
        for name in wanted:
            require(_is_finite(found[name]), not_finite(folder, name))


def not_finite(folder: Path, name: str) -> str:
    """What to say of a tensor with a NaN or an infinity."""
    return f"model folder {folder}: tensor {name} has values that are not finite; get another copy of the model"


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor in the safetensors files of `folder`, from their headers.

    Raises UserError where a file is missing, cut short or not safetensors, or holds what another one does.
    """
    if not (folder / INDEX).is_file():
        require(
            (folder / SINGLE).is_file(),
            f"model folder {folder}: has neither {SINGLE} nor {INDEX}; download its safetensors files",
        )
        return _header(folder / SINGLE)
    weight_map = read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map of names to files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        require((folder / shard).is_file(), f"model folder {folder}: shard {shard} of {INDEX} is missing")
        for name, tensor in _header(folder / shard).items():
            require(name not in tensors, f"model folder {folder}: tensor {name} is in two of the files of {INDEX}")
            tensors[name] = tensor
    for name, shard in weight_map.items():
        require(
            name in tensors and tensors[name].path == folder / shard,
            f"{folder / shard}: holds no tensor {name}, though {INDEX} says so",
        )
    return tensors


def digest_of_weights(folder: Path) -> str:
    """The SHA-256 of the tensors by name, type, shape and content; of a large one its beginning, middle and end.

    The same wherever the folder lies and however the tensors are spread over files. Not covered: a change within a
    large tensor that leaves those three parts as they were.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(read_tensors(folder).items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        size = tensor.end - tensor.start
        starts = [0] if size <= 3 * BLOCK_BYTES else [0, (size - BLOCK_BYTES) // 2, size - BLOCK_BYTES]
        with tensor.path.open("rb") as file:
            for start in starts:
                file.seek(tensor.start + start)
                digest.update(file.read(size if len(starts) == 1 else BLOCK_BYTES))
    return digest.hexdigest()


def _header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors header: its length in 8 little-endian bytes, then JSON, then the data."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else num_bytes
        require(8 + length <= num_bytes, f"{path}: {num_bytes} bytes are no safetensors file; download it again")
        text = file.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        first = 8 + length
        tensors = {
            name: Tensor(
                path=path,
                dtype=entry["dtype"],
                shape=tuple(entry["shape"]),
                start=first + entry["data_offsets"][0],
                end=first + entry["data_offsets"][1],
            )
            for name, entry in entries.items()
        }
        for name, tensor in tensors.items():
            if not all(type(number) is int and number >= 0 for number in (*tensor.shape, tensor.start, tensor.end)):
                raise ValueError(f"tensor {name} has shape {list(tensor.shape)}, or bytes, that are no whole numbers")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UserError(f"{path}: its header is none of a safetensors file ({error}); download it again") from None
    end = max((tensor.end for tensor in tensors.values()), default=first)
    require(end == num_bytes, f"{path}: has {num_bytes} bytes, its header says {end}; download it again")
    before = first
    for name, tensor in sorted(tensors.items(), key=lambda named: (named[1].start, named[1].end)):
        require(tensor.dtype in EXPONENTS, f"{path}: tensor {name} is {tensor.dtype}; only {', '.join(EXPONENTS)} load")
        needed = math.prod(tensor.shape) * WIDTHS[tensor.dtype]
        require(
            tensor.start == before and tensor.end - tensor.start == needed,
            f"{path}: its header gives tensor {name} bytes {tensor.start - first} to {tensor.end - first}, and "
            f"{tensor.dtype} of shape {list(tensor.shape)} takes {needed} from {before - first} on; download it again",
        )
        before = tensor.end
    return tensors


@contextmanager
def _mapped(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, mapped into memory."""
    with (
        tensor.path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as everything,
        everything[tensor.start : tensor.end] as part,
    ):
        yield part


def _has_equal_bits(one: Tensor, other: Tensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with _mapped(one) as left, _mapped(other) as right:
        return left == right


def _is_finite(tensor: Tensor) -> bool:
    import numpy

    kind, exponent = EXPONENTS[tensor.dtype]
    with _mapped(tensor) as content:
        is_special = (numpy.frombuffer(content, kind) & exponent) == exponent
        return not bool(is_special.any())


def _some(names: list[str]) -> str:
    """`tensor a is`, `tensors a, b and 7 more are`."""
    if len(names) == 1:
        return f"tensor {names[0]} is"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"tensors {', '.join(names[:2])}{more} are"
