"""Rows of the golden cases: their picture, and comparing samples and batches with their descriptions."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image


def gradient(width: int, height: int, urlsafe: bool = True) -> str:
    """The picture of the golden rows, base64 PNG."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    channels = [x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 7 % 256]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(buffer, "PNG")
    return (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(buffer.getvalue()).decode()


def compare(got: Any, wanted: Any) -> None:
    """``wanted`` describes tensors by values or by shape, mean and deviation."""
    if isinstance(wanted, dict) and "dtype" in wanted:
        assert str(got.dtype) == wanted["dtype"]
        if "value" in wanted:
            assert got.tolist() == wanted["value"]
        else:
            assert list(got.shape) == wanted["shape"]
            numbers = got if got.is_floating_point() else got.float()
            assert float(numbers.mean()) == pytest.approx(wanted["mean"], abs=1e-6)
            assert float(numbers.std()) == pytest.approx(wanted["std"], abs=1e-6)
    elif isinstance(wanted, dict) and "np_dtype" in wanted:
        assert str(got.dtype) == wanted["np_dtype"]
        assert got.tolist() == wanted["value"]
    elif isinstance(wanted, dict):
        for key, value in wanted.items():
            compare(got[key], value)
    else:
        assert got == wanted
