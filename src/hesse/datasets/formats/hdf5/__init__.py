"""Data sets in HDF5: the format `hesse-dataset`, versions 1 and 2, described in docs/formats.md.

Everything is stored in flat arrays over structures, atoms, probes or Hessian elements; `offsets` give the start of each
structure. A checksum of the whole content is stored and verified on reading.
"""

from hesse.datasets.formats.hdf5.chunked import ChunkedReader
from hesse.datasets.formats.hdf5.reader import is_hesse_hdf5, read_hdf5
from hesse.datasets.formats.hdf5.schema import FORMAT, VERSION
from hesse.datasets.formats.hdf5.writer import write_hdf5

__all__ = ["FORMAT", "VERSION", "ChunkedReader", "is_hesse_hdf5", "read_hdf5", "write_hdf5"]
