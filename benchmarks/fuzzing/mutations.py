"""Mutations of files: bits, cuts, lines, numbers and tokens; arrays of HDF5 and NumPy archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

__all__ = ["mutate"]

Random = np.random.Generator

_NUMBER: Final = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eEdD][-+]?\d+)?")
_WORD: Final = re.compile(rb"[^\s,:=|\\]+")
_NUMBERS: Final = (
    b"nan", b"inf", b"-inf", b"1e400", b"-1e400", b"1e308", b"1e-320", b"0", b"-0", b"-1", b"00", b"1.5", b"********",
    b"99999999999999999999999999", b"-2147483649", b"9223372036854775808", b"1e6", b"1E+", b"0x10", b"1_000", b"1,5",
    b"9" * 5000, b"1D400", b"-999999", b"100000000", b"3000000000", b"1e-9", b"0.0001", b"\xd9\xa3", b"NaN(7)",
)  # fmt: skip
_TOKENS: Final = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", "é".encode("latin-1"), "\u202e\u2028\x85".encode(), b"\x1b]0;x\x07",
    b"\x1b[2J", b"[/x]", b"[bold]", b"{", b"}", b"[", b"]", b'"', b"'", b"\\", b"%s", b"{0}", b"$(x)", b"../../x",
    b"/dev/zero", b"!!python/object/apply:os.getcwd []", b"&a [*a]", b"<<: *a", b"- - - - - -", b"[" * 5000,
    b"{" * 5000, b"a" * 100_000, b"\r", b"\r\n", b"\n", b"\t", b" ", b"#", b"__ndarray__", b"None", b"True", b"X",
    b"Xx", b"Bq", b"H(Iso=2)", b"Uue", b"D", "\U0001f4a5".encode(), b"_JSON [1,", b"T", b"==", b"::", b"1*1000000000",
)  # fmt: skip


def mutate(file: Path, rng: Random, *, text: bool) -> None:
    """Damage a file in one to three ways.

    Args:
        file: the file, replaced.
        rng: source of the choices.
        text: whether the content (unpacked, if it is compressed) is text.
    """
    arrays = _ARRAY_MUTATIONS.get(file.suffix.lower())
    if arrays is not None and rng.random() < 0.6:
        arrays(file, rng)
        return
    pack, unpack = _PACKERS.get(file.suffix.lower(), (bytes, bytes))
    packed = rng.random() < 0.2  # damage to the compressed bytes themselves
    content = file.read_bytes() if packed else unpack(file.read_bytes())
    operations = _BYTES if packed or not text else (*_BYTES, *_TEXT, *_TEXT, *_TEXT)
    for _ in range(int(rng.integers(1, 4))):
        content = operations[int(rng.integers(len(operations)))](content, rng)
    file.write_bytes(content if packed else pack(content))


_PACKERS: Final[Mapping[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]] = {
    ".gz": (gzip.compress, gzip.decompress),
    ".xz": (lzma.compress, lzma.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
}


def _place(content: bytes, rng: Random) -> int:
    return int(rng.integers(len(content) + 1))


# --- bytes --------------------------------------------------------------------------------------------------------


def _flip_bits(content: bytes, rng: Random) -> bytes:
    turned = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if turned:
            turned[int(rng.integers(len(turned)))] ^= 1 << int(rng.integers(8))
    return bytes(turned)


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: _place(content, rng)]


def _cut_front(content: bytes, rng: Random) -> bytes:
    return content[_place(content, rng) :]


def _fill(content: bytes, rng: Random) -> bytes:
    start = _place(content, rng)
    length = min(int(rng.integers(1, 200)), len(content) - start)
    return content[:start] + bytes([int(rng.integers(256))]) * length + content[start + length :]


def _double(content: bytes, rng: Random) -> bytes:
    one, other = sorted((_place(content, rng), _place(content, rng)))
    return content[:other] + content[one:]


def _random_bytes(content: bytes, rng: Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + rng.bytes(int(rng.integers(1, 20))) + content[start:]


# --- text -----------------------------------------------------------------------------------------------------------


def _on_lines(change: Callable[[list[bytes], int, Random], None]) -> Callable[[bytes, Random], bytes]:
    def mutation(content: bytes, rng: Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, int(rng.integers(len(lines))), rng)
        return b"\n".join(lines)

    return mutation


def _delete_line(lines: list[bytes], i: int, rng: Random) -> None:
    del lines[i : i + int(rng.integers(1, 4))]


def _repeat_line(lines: list[bytes], i: int, rng: Random) -> None:
    lines[i:i] = [lines[i]] * int(rng.integers(1, 4))


def _swap_lines(lines: list[bytes], i: int, rng: Random) -> None:
    j = int(rng.integers(len(lines)))
    lines[i], lines[j] = lines[j], lines[i]


def _empty_line(lines: list[bytes], i: int, rng: Random) -> None:
    lines[i] = b"" if rng.random() < 0.5 else lines[i][: int(rng.integers(len(lines[i]) + 1))]


def _replace_match(pattern: re.Pattern[bytes], choices: tuple[bytes, ...]) -> Callable[[bytes, Random], bytes]:
    def mutation(content: bytes, rng: Random) -> bytes:
        matches = list(pattern.finditer(content))
        if not matches:
            return content
        match = matches[int(rng.integers(len(matches)))]
        if rng.random() < 0.2:  # by another one of the same file
            other = matches[int(rng.integers(len(matches)))].group()
        else:
            other = choices[int(rng.integers(len(choices)))]
        return content[: match.start()] + other + content[match.end() :]

    return mutation


def _replace_all(content: bytes, rng: Random) -> bytes:
    """One number everywhere: sizes, charges and units occur several times."""
    numbers = _NUMBER.findall(content)
    if not numbers:
        return content
    old = numbers[int(rng.integers(len(numbers)))]
    new = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
    return re.sub(rb"(?<![\d.])" + re.escape(old) + rb"(?![\d.])", lambda _: new, content)


def _insert_token(content: bytes, rng: Random) -> bytes:
    start = _place(content, rng)
    return content[:start] + _TOKENS[int(rng.integers(len(_TOKENS)))] + content[start:]


_BYTES: Final = (_flip_bits, _cut, _cut_front, _fill, _double, _random_bytes)
_TEXT: Final = (
    _on_lines(_delete_line),
    _on_lines(_repeat_line),
    _on_lines(_swap_lines),
    _on_lines(_empty_line),
    _replace_match(_NUMBER, _NUMBERS),
    _replace_match(_NUMBER, _NUMBERS),
    _replace_match(_WORD, (*_TOKENS, *_NUMBERS)),
    _replace_all,
    _insert_token,
)


# --- arrays ---------------------------------------------------------------------------------------------------------


def _changed_array(values: np.ndarray, rng: Random) -> np.ndarray | None:
    """Another array in place of one: other type, shape or values; None for none."""
    flat = values.reshape(-1)
    changes: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: flat,
        lambda: values[..., None],
        lambda: values[:0],
        lambda: values[:-1] if values.ndim else values,
        lambda: np.concatenate([values, values]) if values.ndim else values,
        lambda: values.astype(np.complex128) if values.dtype.kind in "iuf" else values,
        lambda: values.astype("S8"),
        lambda: values.astype(np.float16) if values.dtype.kind in "iuf" else values,
        lambda: values.astype(np.int64) if values.dtype.kind in "iuf" else values,
        lambda: values.astype(bool) if values.dtype.kind in "iuf" else values,
        lambda: values.astype("f4").astype(">f8") if values.dtype.kind in "iuf" else values,
        lambda: np.full_like(values, np.nan) if values.dtype.kind == "f" else np.full(values.shape, -1),
        lambda: values * 1e300 if values.dtype.kind == "f" else values,
        lambda: np.zeros_like(values),
        lambda: np.zeros(values.shape, [("a", "f8"), ("b", "i4")]),
        lambda: np.array(7),
        lambda: np.zeros((0,)),
        lambda: np.full_like(values, np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else values,
        lambda: np.asarray(values, dtype=object).astype("datetime64[s]") if values.dtype.kind in "iu" else values,
    )
    with np.errstate(all="ignore"):
        return changes[int(rng.integers(len(changes)))]()  # type: ignore[no-any-return]


def _mutate_npz(file: Path, rng: Random) -> None:
    with np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    with np.errstate(all="ignore"):
        changed = _changed_array(arrays.pop(name), rng)
    if changed is not None:
        arrays[name] = changed
    np.savez(file, **arrays)


def _mutate_npy(file: Path, rng: Random) -> None:
    values = np.load(file, allow_pickle=False)
    if rng.random() < 0.2:  # a header that declares more than the file holds
        buffer = io.BytesIO()
        header = np.lib.format.header_data_from_array_1_0(values)
        header["shape"] = tuple(int(s * 10 ** rng.integers(0, 9)) for s in values.shape)
        np.lib.format.write_array_header_1_0(buffer, header)
        file.write_bytes(buffer.getvalue() + values.tobytes())
        return
    changed = _changed_array(values, rng)
    np.save(file, np.zeros(0) if changed is None else changed)


def _mutate_hdf5(file: Path, rng: Random) -> None:
    """Change one array or attribute; the checksum is removed, as an attacker would."""
    with h5py.File(file, "r+") as handle:
        handle.attrs.pop("checksum", None)
        names: list[str] = []
        handle.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.35:
            _odd_member(handle, name, rng)
            return
        values = handle[name][()]
        if values.dtype.kind == "O":
            values = values.astype("S")
        del handle[name]
        changed = _changed_array(values, rng)
        if changed is not None and changed.dtype.kind != "M":
            handle[name] = changed


def _odd_member(handle: h5py.File, name: str, rng: Random) -> None:
    """Put something in the place of an array that is no plain array: links, groups, absurd shapes and types."""
    data = handle[name]
    shape, dtype = data.shape, data.dtype
    del handle[name]
    huge = (10**12, *shape[1:])
    makers: tuple[Callable[[], Any], ...] = (
        lambda: handle.__setitem__(name, h5py.SoftLink("/")),
        lambda: handle.__setitem__(name, h5py.SoftLink("/nowhere")),
        lambda: handle.__setitem__(name, h5py.ExternalLink("/dev/zero", "/x")),
        lambda: handle.create_group(name),
        lambda: handle.create_dataset(name, huge, dtype="f8", chunks=(64, *(max(1, s) for s in shape[1:]))),
        lambda: handle.create_dataset(name, shape, dtype=h5py.vlen_dtype(np.float64)),
        lambda: handle.create_dataset(name, shape, dtype=h5py.ref_dtype),
        lambda: handle.create_dataset(name, shape, dtype=h5py.enum_dtype({"A": 0, "B": 1})),
        lambda: handle.create_dataset(name, shape, dtype=h5py.string_dtype()),
        lambda: handle.create_dataset(name, data=h5py.Empty("f8")),
        lambda: handle.create_dataset(name, shape, dtype=np.dtype((np.void, 16))),
        lambda: handle.create_dataset(name, shape, dtype=np.dtype(("f8", (3,)))),
        lambda: handle.create_dataset(name, shape, dtype=dtype, chunks=True, compression="lzf") if all(shape) else None,
        lambda: handle.__setitem__(name, handle["/"]),
        lambda: [handle.attrs.__setitem__(k, np.zeros((2, 2))) for k in list(handle.attrs)],
    )
    makers[int(rng.integers(len(makers)))]()


_ARRAY_MUTATIONS: Final[Mapping[str, Callable[[Path, Random], None]]] = {
    ".npz": _mutate_npz,
    ".npy": _mutate_npy,
    ".h5": _mutate_hdf5,
    ".hdf5": _mutate_hdf5,
}
