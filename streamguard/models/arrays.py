"""The arrays of a model in a safetensors file: the same bytes for the same arrays, and no code in what is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A safetensors file; the same arrays give the same bytes.

    Examples
    --------
    >>> data = pack({"a": np.arange(3)})
    >>> unpack(data, {"a": np.dtype(np.int64)}, {})["a"]
    array([0, 1, 2])
    """
    return bytes(
        safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    )


def unpack(
    data: bytes, kinds: Mapping[str, np.dtype[Any]], dimensions: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file that holds exactly the expected ones.

    Parameters
    ----------
    data
        The file. The library compares what it claims with its length before it allocates anything.
    kinds
        Name -> dtype of every array.
    dimensions
        Name -> number of axes, where it is not 1.

    Raises
    ------
    ValueError
        If the file is damaged or holds other arrays; the message names the array and says what is wrong.
    """
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"is not a whole safetensors file: {error}") from None
    if arrays.keys() != kinds.keys():
        raise ValueError(f"holds {sorted(arrays)[:20]}, expected {sorted(kinds)}")
    for name, kind in kinds.items():
        array, axes = arrays[name], dimensions.get(name, 1)
        if array.dtype != kind or array.ndim != axes:
            raise ValueError(
                f"{name} is {array.dtype.str} with {array.ndim} axes, expected {kind.str} with {axes}"
            )
    return arrays
