"""Reads pickles of nested dictionaries of NumPy arrays, as JAX projects publish weights, without running their code."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from liif_core.errors import UserError, cut

STARTS = tuple(bytes((0x80, protocol)) for protocol in (3, 4, 5))  # torch.save writes protocol 2
_KINDS = "fiub"  # kinds of NumPy types: floats, whole numbers, booleans
_DEEPEST = 32  # nested dictionaries and lists
_MOST = 1_000_000  # values in all of them


class _Refused(ValueError):
    """What a pickle of weights does not have."""


class _Type:
    """Stands for ``numpy.dtype``."""

    def __init__(self, text: str = "", *_: Any):
        self.text, self.order = str(text), "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def found(self) -> np.dtype[Any]:
        dtype = np.dtype(self.text).newbyteorder("<" if self.order == "|" else self.order)  # type: ignore[arg-type]
        if dtype.kind not in _KINDS:
            raise _Refused(f"an array of type {cut(self.text)}")
        return dtype


class _Array:
    """Stands for ``numpy.ndarray``: keeps what a pickle says of an array, and makes the array once that is checked."""

    def __init__(self, *_: Any):
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.value = _made(data, kind, shape, "F" if fortran else "C")


def _made(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not (isinstance(kind, _Type) and isinstance(data, (bytes, bytearray)) and isinstance(shape, tuple)):
        raise _Refused("an array that is stored in an unknown way")
    flat = np.frombuffer(data, kind.found())
    flat = flat.astype(flat.dtype.newbyteorder("="))  # torch has no other byte orders
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """Stands for the function with which arrays are stored since protocol 5."""
    found = _Array()
    found.value = _made(data, kind, shape, order)
    return found


class _Dictionary(dict[Any, Any]):
    """Stands for Flax's ``FrozenDict``, which is called with a dictionary."""


_KNOWN: dict[tuple[str, str], Any] = {
    ("flax.core.frozen_dict", "FrozenDict"): _Dictionary,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Refused(f"it refers to {cut(f'{module}.{name}')}, which may run code")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to data outside the file")


def read_pickle(path: Path) -> Any:
    """The content of a pickle: dictionaries, lists, numbers, strings and NumPy arrays.

    Raises UserError for a file that is damaged, or has anything else in it.
    """
    try:
        with open(path, "rb") as file:
            return _Plain().of(_Unpickler(file).load())
    except _Refused as error:
        raise UserError(
            f"{path}: not a pickle of weights that loads safely: {error}; expected dictionaries of NumPy arrays"
        ) from None
    except Exception as error:  # pickle raises many kinds for files that are damaged
        raise UserError(f"{path}: not a pickle of weights that loads safely, or damaged: {cut(error, 300)}") from None


class _Plain:
    """Values in place of what stands for them."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self.count += 1
        if depth > _DEEPEST or self.count > _MOST:
            raise _Refused("too many values, or nested too deeply")
        if isinstance(value, Mapping):
            return {str(key): self.of(part, depth + 1) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(part, depth + 1) for part in value]
        if isinstance(value, _Array) and value.value is not None:
            return value.value
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise _Refused(f"it has a {type(value).__name__.strip('_')}")
