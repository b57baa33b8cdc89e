"""How data are stored: HDF5, NPZ and FITS in, HDF5 and NPZ out, and how a file is replaced as a whole."""

from robusta_prob.io.assemble import read, write
from robusta_prob.io.files import atomic_path, check_writable, open_hdf5, remove_temporaries
from robusta_prob.io.trees import read_tree, write_tree

__all__ = [
    "atomic_path",
    "check_writable",
    "open_hdf5",
    "read",
    "read_tree",
    "remove_temporaries",
    "write",
    "write_tree",
]
