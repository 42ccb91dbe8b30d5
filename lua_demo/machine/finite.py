"""Whether a tensor holds numbers: broken weights and narrow dtypes give NaN and infinity, which decode to black."""

from __future__ import annotations

import torch
from torch import Tensor

from lua_demo.schema import UserError


def check_finite(values: Tensor, stage: str) -> Tensor:
    """`values`, of any shape and device, unless one of them is no number.

    It costs one sum on the device, which is NaN or infinite where a value is, and waits for the device.

    Args:
        stage: what made the values, for the error.
    Raises:
        UserError: a value is NaN or infinite.
    """
    # In float64 no sum of finite values overflows. MPS has none: there a sum may, and is looked at again.
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    if not torch.isfinite(values.sum(dtype=wide)) and not bool(torch.isfinite(values).all()):
        raise UserError(
            f"{stage} gave values that are no numbers (NaN or infinity): its weights are damaged, or the dtype is too "
            "narrow for it; get the weights again, or use --dtype float32"
        )
    return values
