"""How data are stored: HDF5, NPZ and FITS in, HDF5 and NPZ out, and how a file is replaced as a whole."""

from robusta_prob.io.assemble import read, write
from robusta_prob.io.files import atomic_path, open_hdf5

__all__ = ["atomic_path", "open_hdf5", "read", "write"]
