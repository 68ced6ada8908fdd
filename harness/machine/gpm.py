"""GPM, NVML's metrics of the units of a GPU between two samples (Hopper and newer)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# nvml.h, nvmlGpmMetricId_t; all in percent. NVJPG_UTIL has one metric per JPEG engine of the GPU.
SM_UTIL = 2
DRAM_BW_UTIL = 10
NVJPG_UTIL = tuple(range(40, 48))
_METRICS = (SM_UTIL, DRAM_BW_UTIL, *NVJPG_UTIL)
# nvml.h, NVML_GPM_METRICS_GET_VERSION
_METRICS_GET_VERSION = 1
# nvml.h, NVML_SUCCESS
_SUCCESS = 0
# The NVML reference requires more than 100 ms between two samples, because the counters aren't updated more often.
_MIN_SPAN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class GpmMetric:
    """The value of one GPM metric; it is valid only if code, an nvmlReturn_t, is 0."""

    code: int
    value: float


class Gpm:
    """The metrics of one GPU between its samples; they stay empty on a GPU without GPM.

    ask(what, function, *arguments) calls a function of the binding, and returns None if that fails. Two buffers of the
    driver alternate as the older and the newer sample; close() frees them.
    """

    def __init__(self, ask: Callable[..., Any], handle: Any, clock: Callable[[], float]) -> None:
        self._ask, self._handle, self._clock = ask, handle, clock
        self._older: Any = None
        self._newer: Any = None
        self._older_at_seconds: float | None = None
        self._metrics: Mapping[int, GpmMetric] = {}
        support = ask("GPM support", "nvmlGpmQueryDeviceSupport", handle)
        if support is not None and support.isSupportedDevice:
            self._older = ask("GPM buffers", "nvmlGpmSampleAlloc")
            self._newer = ask("GPM buffers", "nvmlGpmSampleAlloc")

    def metrics(self) -> Mapping[int, GpmMetric]:
        """Returns each metric since the previous sample, by its number; empty for the first sample, or if unknown.

        Within 0.1 s of the previous sample its metrics are repeated.
        """
        at_seconds = self._clock()
        if self._older is None or self._newer is None:
            return {}
        if self._older_at_seconds is not None and at_seconds - self._older_at_seconds < _MIN_SPAN_SECONDS:
            return self._metrics
        if self._ask("GPM sample", "nvmlGpmSampleGet", self._handle, self._newer) is None:
            return {}
        self._metrics = {} if self._older_at_seconds is None else self._between_samples()
        self._older, self._newer = self._newer, self._older
        self._older_at_seconds = at_seconds
        return self._metrics

    def close(self) -> None:
        """Free the buffers."""
        for sample in filter(None, (self._older, self._newer)):
            self._ask("GPM buffers' end", "nvmlGpmSampleFree", sample)
        self._older = self._newer = None

    def _between_samples(self) -> Mapping[int, GpmMetric]:
        request = self._ask("GPM metrics", "c_nvmlGpmMetricsGet_t")
        if request is None:
            return {}
        request.version = _METRICS_GET_VERSION
        request.numMetrics = len(_METRICS)
        request.sample1, request.sample2 = self._older, self._newer
        for position, number in enumerate(_METRICS):
            request.metrics[position].metricId = number
        if self._ask("GPM metrics", "nvmlGpmMetricsGet", request) is None:
            return {}
        answers = request.metrics[: len(_METRICS)]
        return {answer.metricId: GpmMetric(answer.nvmlReturn, answer.value) for answer in answers}


def mean_of_engines(metrics: Mapping[int, GpmMetric]) -> float | None:
    """Returns the mean utilisation of a GPU's JPEG engines, from GPM's metric of each; None if unknown."""
    engines = [metrics[number] for number in NVJPG_UTIL if number in metrics]
    known = [engine.value for engine in engines if engine.code == _SUCCESS and math.isfinite(engine.value)]
    return sum(known) / len(known) if known else None
