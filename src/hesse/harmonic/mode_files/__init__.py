"""Files of normal modes for viewers and other programs: Molden, moving geometries, text like that of Gaussian, ASE."""

from hesse.harmonic.mode_files.gaussian_text import gaussian_text
from hesse.harmonic.mode_files.molden import molden_text
from hesse.harmonic.mode_files.movie import mode_movie
from hesse.harmonic.mode_files.writing import MODE_FILE_SUFFIXES, check_mode_file, write_modes

__all__ = [
    "MODE_FILE_SUFFIXES",
    "check_mode_file",
    "gaussian_text",
    "mode_movie",
    "molden_text",
    "write_modes",
]
