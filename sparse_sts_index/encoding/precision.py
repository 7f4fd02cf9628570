"""The number format that a model's transformer runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparse_sts_index.vectors.spec import PRECISIONS, Precision

if TYPE_CHECKING:
    import torch


def encoding_precision(precision: Precision, device: torch.device) -> Precision:
    """What ``"auto"`` stands for when encoding on a device.

    ``"bfloat16"`` where the device computes with it: a CPU that reports AVX512-BF16 or AMX, a GPU that reports
    bfloat16. Else ``"float32"``. Nothing is timed.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
    device : torch.device

    Raises
    ------
    ValueError
        Not one of the three.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, as it reports itself."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (cpu_reports("_is_avx512_bf16_supported") or cpu_reports("_is_amx_tile_supported"))


def cpu_reports(check: str) -> bool:
    """The answer of a check in ``torch.cpu``, such as ``"_is_vnni_supported"``; False where torch has no such check."""
    import torch

    function: Any = getattr(torch.cpu, check, None)
    return function is not None and bool(function())
