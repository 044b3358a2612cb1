"""A data set in memory: flat tensors, from which batches are made by indexing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Batch, Labels, Structure, assemble, offsets_of, ragged_indices, structure_key

__all__ = ["Dataset", "PairTable"]


@dataclass(frozen=True, eq=False)
class PairTable:
    """Neighbour pairs of every atom of a data set below one cutoff, in order of the atoms; `second` counts from the
    first atom of the pair's own structure, so that structures can be moved about."""

    counts: Int[Tensor, "atoms"]
    starts: Int[Tensor, "atoms"]
    second: Int[Tensor, "pairs"]
    shifts: Int[Tensor, "pairs 3"] | None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Structures and their labels.

    Attributes:
        structures: geometry, one by one (for writing, for engines).
        labels: all labels, float64, in the same order.
        attributes: what is known of the labels as a whole: `level` (of theory), `engine`, `step`, `code_version`, ...
        source: the file it came from, for messages.
        unread: columns and keys of that file that were not understood: labels under other names, perhaps.
    """

    structures: tuple[Structure, ...]
    labels: Labels
    attributes: Mapping[str, str] = field(default_factory=dict)
    source: str = "memory"
    unread: tuple[str, ...] = ()
    _pairs: dict[float, PairTable] = field(default_factory=dict, init=False, repr=False)
    _numbers: Tensor = field(init=False, repr=False)
    _positions: Tensor = field(init=False, repr=False)
    _cell: Tensor = field(init=False, repr=False)
    _pbc: Tensor = field(init=False, repr=False)
    _keys: Tensor = field(init=False, repr=False)
    _offsets: Tensor = field(init=False, repr=False)
    _ids: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "structures", tuple(self.structures))
        ids = [s.id for s in self.structures]
        if len(set(ids)) != len(ids):
            seen: set[str] = set()
            twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise RequestError(f'{self.source}: the id "{twice}" stands twice; ids name structures and must differ')
        sizes = [len(s) for s in self.structures]
        if sizes != self.labels.n_atoms.tolist():
            raise RequestError(f"{self.source}: labels and structures are not of the same sizes or number")
        flat: dict[str, Any] = {
            "numbers": torch.from_numpy(_joined([s.numbers for s in self.structures], (0,), np.int64)),
            "positions": torch.from_numpy(_joined([s.positions for s in self.structures], (0, 3), np.float64)),
            "cell": torch.from_numpy(np.array([s.cell for s in self.structures]).reshape(-1, 3, 3)),
            "pbc": torch.tensor([s.pbc for s in self.structures], dtype=torch.bool).reshape(-1, 3),
            "keys": torch.tensor([structure_key(i) for i in ids], dtype=torch.int64),
            "offsets": offsets_of(self.labels.n_atoms),
            "ids": np.array(ids, dtype=object),
        }
        for name, value in flat.items():
            object.__setattr__(self, f"_{name}", value)

    def __repr__(self) -> str:
        return f"Dataset({self.source!r}, {self.labels!r})"

    # --- construction --------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, pairs: Iterable[tuple[Structure, Labels]], **attributes: str) -> Dataset:
        """A data set from structures and their labels, one by one."""
        items = list(pairs)
        if not items:
            raise RequestError("a data set needs at least one structure")
        return cls(tuple(s for s, _ in items), Labels.concatenate([label for _, label in items]), attributes=attributes)

    def select(self, indices: Sequence[int] | Int[Tensor, "chosen"]) -> Dataset:
        """The structures `indices`, in that order, as a data set of their own."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Dataset(
            tuple(self.structures[i] for i in chosen.tolist()),
            self.labels.select(chosen),
            attributes=self.attributes,
            source=self.source,
            unread=self.unread,
        )

    def where(self, keep: Callable[[Structure], bool]) -> Dataset:
        """The structures for which `keep` is true."""
        return self.select([i for i, s in enumerate(self.structures) if keep(s)])

    def without_suspects(self) -> Dataset:
        """The structures whose labels are not flagged `suspect`; itself when none is.

        Raises:
            MissingLabelError: all are.
        """
        suspects = self.labels.suspects()
        if not bool(suspects.any()):
            return self
        if bool(suspects.all()):
            raise MissingLabelError(
                f"{self.source}: the labels of all {len(self)} structures are flagged suspect; `hesse info` says why. "
                "Label them again with other settings, or ask for suspect labels to be included."
            )
        return self.select((~suspects).nonzero()[:, 0])

    def with_ids(self, ids: Iterable[str]) -> Dataset:
        """The structures named, in that order. Raises RequestError for an id that is not here."""
        index = {s.id: i for i, s in enumerate(self.structures)}
        wanted = list(ids)
        missing = [i for i in wanted if i not in index]
        if missing:
            raise RequestError(
                f'{self.source}: no structure "{missing[0]}" ({len(missing)} of {len(wanted)} ids are not here)'
            )
        return self.select([index[i] for i in wanted])

    def split(self, *fractions: float, seed: int = 0, by_group: bool = True) -> tuple[Dataset, ...]:
        """Random parts of the given fractions (of the structures; they may sum to less than one).

        Structures of one `group` (a molecule, a reaction) stay together unless `by_group` is off; structures without
        a group are groups of their own.
        """
        if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise RequestError(f"split fractions must be positive and sum to at most 1, got {fractions}")
        names = [(s.group if by_group else "") or f"id:{s.id}" for s in self.structures]
        groups = sorted(set(names))
        order = np.random.default_rng(seed).permutation(len(groups))
        sizes = dict.fromkeys(groups, 0)
        for name in names:
            sizes[name] += 1
        ends = np.cumsum(fractions) * len(names)
        part_of: dict[str, int] = {}
        done = 0
        for k in order:
            # A group goes where its middle falls.
            middle = done + sizes[groups[k]] / 2
            part_of[groups[k]] = int(np.searchsorted(ends, middle))
            done += sizes[groups[k]]
        parts = tuple(
            self.select([i for i, name in enumerate(names) if part_of[name] == p]) for p in range(len(fractions))
        )
        if any(len(part) == 0 for part in parts):
            raise RequestError(
                f"splitting {len(names)} structures in {len(groups)} groups by {fractions} leaves a part empty; "
                "use more data, other fractions, or by_group=False"
            )
        return parts

    # --- questions -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, ascending."""
        return tuple(int(z) for z in self._numbers.unique())

    def require(self, *names: str) -> None:
        """Raise MissingLabelError unless at least one structure holds each of the labels `names`."""
        for name in names:
            if not bool(self.labels.mask(name).any()):
                held = [n for n in ("energy", "forces", "hvp", "hessian", "stress") if self.labels.mask(n).any()]
                raise MissingLabelError(
                    f"{self.source}: no structure holds the label {name!r} (found: {', '.join(held) or 'none'}). "
                    "Label the structures with `hesse label`, or change the loss weights." + self._hint(name)
                )

    def _hint(self, label: str) -> str:
        """What to do when the label stands in the file under another name (`REF_forces`)."""
        other = next((key for key in self.unread if label in key.lower()), None)
        if other is None:
            return ""
        return f" If {other} is what you mean: `hesse convert --rename {other}={label}`."

    def data_hash(self) -> str:
        """A digest of all geometry and labels: equal data, equal hash, whatever file they came from."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("numbers", "positions", "cell", "pbc", "keys"):
            digest.update(getattr(self, f"_{name}").numpy().tobytes())
        for f in fields(self.labels):
            value = getattr(self.labels, f.name)
            unsaid = f.name == "suspect" and not bool(self.labels.suspects().any())
            if isinstance(value, Tensor) and not unsaid:
                digest.update(f.name.encode())
                digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    # --- batches -------------------------------------------------------------------------------------------------

    def pairs(self, cutoff: float) -> PairTable:
        """All neighbour pairs below `cutoff` Å, found once."""
        if cutoff not in self._pairs:
            lists = [s.neighbours(cutoff) for s in self.structures]
            counts = torch.from_numpy(_joined([p.counts for p in lists], (0,), np.int64))
            shifts = None
            if any(s.periodic for s in self.structures):
                shifts = torch.from_numpy(_joined([p.shifts for p in lists], (0, 3), np.int64))
            second = torch.from_numpy(_joined([p.second for p in lists], (0,), np.int64))
            self._pairs[cutoff] = PairTable(counts, counts.cumsum(0) - counts, second, shifts)
        return self._pairs[cutoff]

    def batch(
        self,
        indices: Int[Tensor, "chosen"] | Sequence[int],
        cutoff: float,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> tuple[Batch, Labels]:
        """Structures `indices` as a batch with their labels. Indexing only: no loop over structures."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        table = self.pairs(cutoff)
        n = self.labels.n_atoms[chosen]
        starts = self._offsets[chosen]
        atoms = ragged_indices(starts, n)
        counts = table.counts[atoms]
        pair_index = ragged_indices(table.starts[atoms], counts)
        # Where each structure begins in the batch; every pair of an atom moves along with it.
        begin = torch.repeat_interleave(torch.repeat_interleave(n.cumsum(0) - n, n), counts)
        batch = assemble(
            numbers=self._numbers[atoms],
            positions=self._positions[atoms],
            n_atoms=n,
            cell=self._cell[chosen],
            pbc=self._pbc[chosen],
            pair_counts=counts,
            pair_starts=counts.cumsum(0) - counts,
            pair_second=table.second[pair_index] + begin,
            pair_shifts=None if table.shifts is None else table.shifts[pair_index],
            keys=self._keys[chosen],
            ids=tuple(self._ids[chosen.numpy()]),
            cutoff=cutoff,
        )
        return batch.to(device, dtype), self.labels.select(chosen).to(device, dtype)

    def batches(
        self, max_atoms: int, *, order: Sequence[int] | None = None, max_structures: int | None = None
    ) -> list[list[int]]:
        """Indices in runs of at most `max_atoms` atoms (and `max_structures`); a larger structure runs alone."""
        runs: list[list[int]] = []
        filled = 0
        sizes = self.labels.n_atoms.tolist()
        for i in range(len(self)) if order is None else order:
            full = runs and (
                filled + sizes[i] > max_atoms or (max_structures is not None and len(runs[-1]) >= max_structures)
            )
            if not runs or full:
                runs.append([])
                filled = 0
            runs[-1].append(int(i))
            filled += sizes[i]
        return runs


def _joined(arrays: list[Any], empty: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    if not arrays:
        return np.zeros(empty, dtype=dtype)
    return np.ascontiguousarray(np.concatenate(arrays), dtype=dtype)
