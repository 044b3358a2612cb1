"""A folder with the replicas of `hesse md`: finished ones, and the states of those that an interruption stopped.

One file of tensors for each replica, with a digest, replaced as a whole. The name of a file is a digest of everything
that determines the replica: structure, engine, settings and seed. Damaged files count as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hesse.engines import Engine
from hesse.errors import FileFormatError, WriteError
from hesse.pes.md_failures import Failure, FailureReason
from hesse.pes.md_replicas import Replica, ReplicaRun
from hesse.pes.md_settings import ReplicaSettings
from hesse.runtime.filesystem import lock_file, remove_abandoned
from hesse.runtime.tensor_files import read_header, read_tensors, write_tensors
from hesse.sampling.search_journal import search_key
from hesse.structures import Structure

__all__ = ["ReplicaStore", "replica_key", "store_path"]

_FORMAT = "hesse-replica-1"
_KIND = "replica"


def store_path(output: Path) -> Path:
    """Path of the folder of an output file, beside it.

    Args:
        output: the output file.

    Returns:
        `output` with the ending `.replicas` added.
    """
    return Path(f"{output}.replicas")


def replica_key(start: Structure, engine: Engine, settings: ReplicaSettings, seed: int) -> str:
    """Digest of everything that determines a replica.

    Args:
        start: the structure.
        engine: the engine.
        settings: the settings.
        seed: the seed.

    Returns:
        Its key in the store.
    """
    options = settings.model_dump(exclude=None if settings.contacts else {"contacts"})  # as before there were contacts
    return search_key(start, engine, {"seed": seed, **options})


@dataclass(frozen=True)
class ReplicaStore:
    """Reads and writes the replicas in a folder.

    Attributes:
        folder: the folder.
    """

    folder: Path

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[ReplicaStore]:
        """Context in which this process (with its workers) alone writes to the folder, which is made if missing.

        Args:
            folder: the folder.

        Yields:
            The store.

        Raises:
            RequestError: another process writes to it.
            WriteError: it cannot be made or written.
        """
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise WriteError(
                f"cannot make the folder {folder}, which keeps the replicas: {error.strerror}. Move what is in its "
                "place, or choose another OUT"
            ) from error
        with lock_file(
            folder / ".lock", f"another run writes to {folder}: wait for it, stop it, or choose another OUT"
        ):
            remove_abandoned(folder, [path.name for path in folder.glob("*.safetensors")])
            yield cls(folder)

    def save(self, key: str, run: ReplicaRun) -> None:
        """Write the state of a replica.

        Args:
            key: its key.
            run: the state, between two blocks.

        Raises:
            WriteError: the file cannot be written.
        """
        failure = None if run.failure is None else [str(run.failure.reason), run.failure.detail]
        state = {"format": _FORMAT, "step": run.step, "heat": run.heat, "failure": failure}
        track = run.trajectory()
        arrays = {
            "positions": run.positions,
            "velocities": run.velocities,
            "start": run.replica.start.positions,
            "samples": np.array(run.samples, dtype=np.float64).reshape(-1, 3),
            "snapshot_steps": track.steps,
            "snapshot_positions": track.positions,
            "snapshot_energies": track.energies,
            "snapshot_forces": track.forces,
        }
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
        write_tensors(self._file(key), {"state": json.dumps(state)}, tensors)

    def load(self, key: str, replica: Replica) -> ReplicaRun | None:
        """Read the state of a replica.

        Args:
            key: its key.
            replica: the replica, whose starting geometry is that of the file afterwards.

        Returns:
            The state, finished or not; None if there is none that can be used.
        """
        path = self._file(key)
        if not path.is_file() or path.is_symlink():
            return None
        try:
            state = json.loads(read_header(path, _KIND)["state"])
            arrays = {name: tensor.numpy() for name, tensor in read_tensors(path, _KIND).items()}
            if state["format"] != _FORMAT or arrays["positions"].shape != replica.start.positions.shape:
                return None
            failure = state["failure"] and Failure(FailureReason(state["failure"][0]), str(state["failure"][1]))
            snapshots = zip(
                arrays["snapshot_steps"].tolist(),
                arrays["snapshot_positions"],
                arrays["snapshot_energies"].tolist(),
                arrays["snapshot_forces"],
                strict=True,
            )
            start = replica.start.with_positions(arrays["start"], id=replica.start.id)
            return ReplicaRun(
                Replica(start, replica.seed),
                int(state["step"]),
                arrays["positions"],
                arrays["velocities"],
                float(state["heat"]),
                failure or None,
                [(time, energy, temperature) for time, energy, temperature in arrays["samples"].tolist()],
                list(snapshots),
            )
        except (FileFormatError, KeyError, ValueError, TypeError, IndexError):
            return None

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
