"""Paddle's own mixed precision on a CPU: its scaler and its casts run, though Paddle leaves them to GPUs."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest

# Paddle reports so of a network in 16 bits on a CPU, which then computes in float32.
NO_EFFECT = "ignore:amp_guard can only be enabled on CUDAPlace:UserWarning"
# GradScaler prints a factor that it lowers, from an array of one element.
FACTOR_PRINTED = "ignore:Conversion of an array with ndim > 0 to a scalar:DeprecationWarning"
# paddle.amp.auto_cast is a function and hides the module of that name.
GRAD_SCALER, AUTO_CAST = "paddle.amp.grad_scaler", "paddle.amp.auto_cast"
PLACE = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
TRACER = SimpleNamespace(_expected_place=PLACE)


def scale_as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let GradScaler scale here.

    Only Paddle's question for the place is answered; the scaling, its state and its names are Paddle's. auto_cast still
    casts nothing, as no CPU has the kernels.
    """
    patch.setattr(import_module(GRAD_SCALER), "_dygraph_tracer", lambda: TRACER)
    # auto_cast leaves its format in Paddle's global state, where the scaler looks.
    patch.setattr(import_module(AUTO_CAST).amp_global_state(), "amp_dtype", "float32")


def decorate_as_on_a_gpu(patch: pytest.MonkeyPatch) -> None:
    """Let paddle.amp.decorate give a network's weights 16 bits here."""
    module = import_module(AUTO_CAST)
    patch.setattr(module, "_dygraph_tracer", lambda: TRACER)
    for dtype in ("float16", "bfloat16"):
        patch.setattr(module, f"_is_gpu_{dtype}_supported", lambda: True)
