"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch


class DeviceError(RuntimeError):
    """A device was asked for that this machine does not have."""


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device to run on; None takes the GPU where there is one.

    Raises:
        DeviceError: for a name that torch does not know, or a GPU that is not there
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"{device!r} is no device; pass 'cpu', 'cuda' or 'cuda:1'") from error
    if resolved.type == "cuda":
        count = torch.cuda.device_count()
        if (resolved.index or 0) >= count:
            seen = f"sees {count} GPUs" if count else "sees no GPU"
            raise DeviceError(f"device {device!r} was asked for, but PyTorch {seen}; pass device='cpu'")
    return resolved


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision of all parameters; None takes bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ValueError: for anything but float32, bfloat16 and float16
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    resolved = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if resolved not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype!r}; choose 'float32', 'bfloat16' or 'float16'")
    return resolved
