"""Safetensors files with a text header and a digest of header and tensors: model files, checkpoints, weights."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hesse.errors import FileFormatError
from hesse.runtime.filesystem import atomic_write, check_input_file

__all__ = ["read_header", "read_tensors", "tensor_digest", "write_tensors"]


def write_tensors(path: str | Path, header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and a text header, with their digest.

    Args:
        path: file to write.
        header: texts by key; the key "digest" is added.
        tensors: tensors by name.

    Raises:
        WriteError: the file could not be written; an existing file is unchanged.
    """
    # Cloned: safetensors refuses tensors that share memory.
    flat = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    full_header = {**header, "digest": tensor_digest(header, flat)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(flat, metadata=full_header))


def read_header(path: Path, kind: str) -> dict[str, str]:
    """Read the text header of a file.

    Args:
        path: a safetensors file.
        kind: kind of file expected, for the message ("model").

    Returns:
        Texts by key.

    Raises:
        FileFormatError: the file is missing or damaged.
    """
    check_input_file(path, f"{kind} file")
    try:
        with safe_open(path, "pt") as handle:
            return handle.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged_file_error(path, error, kind) from error


def read_tensors(path: Path, kind: str) -> dict[str, Tensor]:
    """Read all tensors of a file and check their digest.

    Args:
        path: a safetensors file written by `write_tensors`.
        kind: kind of file expected, for the message ("model").

    Returns:
        Tensors by name, on the CPU.

    Raises:
        FileFormatError: the file is missing or damaged, or its digest does not match.
    """
    meta = read_header(path, kind)
    try:
        with safe_open(path, "pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise _damaged_file_error(path, error, kind) from error
    if meta.get("digest") != tensor_digest(meta, tensors):
        raise FileFormatError(f"{path}: its contents do not match their digest: the file was damaged or edited by hand")
    return tensors


_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _damaged_file_error(path: Path, error: Exception, kind: str) -> FileFormatError:
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE:
            return FileFormatError(f"{path}: expected a {kind} file (.hesse), and this is HDF5: a data set?")
    return FileFormatError(f"{path}: not a readable {kind} file ({error}). It may be truncated: copy or make it again.")


def tensor_digest(meta: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Digest of a header (without its key "digest") and of tensors.

    Args:
        meta: texts by key.
        tensors: tensors by name, on the CPU.

    Returns:
        32 hexadecimal digits (BLAKE2b).
    """
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(meta):
        if key != "digest":
            digest.update(f"{key}={meta[key]}\n".encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():  # torch cannot view an empty array of numpy, whose stride is zero, as bytes
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
