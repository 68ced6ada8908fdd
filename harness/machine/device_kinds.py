"""The kinds of device that a run can train on, and everything in which they differ: nothing else asks for the kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.words import count_of
from pipelines.settings import CPU_DECODER, MIXED_DECODER

# The clocks of `harness.machine.clock`: the host's, events that carry a time, and events that only pass.
HOST_CLOCK, TIMED_EVENTS, PASSING_EVENTS = "host", "timed events", "passing events"

# The values of --tf32, which only a kind with cuDNN takes.
ON, OFF = "on", "off"

# Paddle's launcher would start its ranks on a plugin's devices wherever one is installed.
NO_PLUGINS = {"CUSTOM_DEVICE_ROOT": ""}


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """One kind of device.

    name is Paddle's name of it, title and plural are those in sentences. selection is the environment variable that
    limits which devices a process sees. on_host: it trains on the host's cores, so that ranks, DALI and other programs
    share them, and batches need not be moved. decoder is the one that DALI has for it, backend Paddle's collective
    library. nvml: the driver comes with NVML, which reports the device's state. memory is what a batch may not fit
    into, and failure the pattern of Paddle's message when the device or its collectives fail; empty where it has none.
    batch_size and warmup_steps are defaults. sixteen_bit: Paddle has convolutions in 16 bits for it. sync_batch_norm:
    Paddle has synchronised batch norm for it. cudnn: its convolutions may be cuDNN's. multi_tensor: Paddle has an
    operator that updates all weights at once for it; a plugin may lack the kernel. Of the ranks' environment, flags are
    variables that it gets, defaults those that it gets where the user has not set them, and hidden those that it must
    not have.
    """

    name: str
    title: str
    plural: str
    selection: str
    on_host: bool
    decoder: str
    backend: str
    clock: str
    nvml: bool
    memory: str
    failure: str
    batch_size: int
    warmup_steps: int
    sixteen_bit: bool
    sync_batch_norm: bool
    cudnn: bool
    multi_tensor: bool
    flags: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    def hands_over(self, decoder: str) -> bool:
        """Whether this decoder's batches are in the host's memory, and the device trains from its own."""
        return decoder == CPU_DECODER and not self.on_host

    def several(self, ranks: int, hardware: str) -> str:
        """The devices of a run in words: "2 CPU ranks on AMD EPYC", "4 x NVIDIA H100"."""
        return f"{count_of(ranks, 'CPU rank')} on {hardware}" if self.on_host else f"{ranks} x {hardware}"


CPU = DeviceKind(
    name="cpu",
    title="CPU",
    plural="CPUs",
    selection="",
    on_host=True,
    decoder=CPU_DECODER,
    backend="gloo",
    clock=HOST_CLOCK,
    nvml=False,
    memory="memory",
    failure="",
    batch_size=16,  # as fast as 32, with twice as many steps to measure
    warmup_steps=3,
    sixteen_bit=False,
    sync_batch_norm=False,
    cudnn=False,
    multi_tensor=True,
    flags=NO_PLUGINS,
    # The milliseconds for which Intel's OpenMP keeps idle threads busy. With 200, its default, they take the cores from
    # the loader while training waits for it.
    defaults={"KMP_BLOCKTIME": "1"},
    # The launcher takes the mere presence of the variable as a sign of GPUs, even on a CPU build.
    hidden=("CUDA_VISIBLE_DEVICES",),
)
GPU = DeviceKind(
    name="gpu",
    title="GPU",
    plural="GPUs",
    selection="CUDA_VISIBLE_DEVICES",
    on_host=False,
    decoder=MIXED_DECODER,
    backend="nccl",
    clock=TIMED_EVENTS,
    nvml=True,
    memory="GPU's memory",
    # Paddle's words, NCCL's for a failed call of CUDA, and DALI's.
    failure=r"(?:CUDA error ?\(\d+\)|NCCL error\(1\), unhandled cuda error|CUDA (?:runtime|driver) API error)[^\n]*",
    batch_size=512,  # the published recipe's, on each of 4 GPUs
    warmup_steps=20,  # cuDNN tries its algorithms, DALI's buffers grow, clocks rise
    sixteen_bit=True,
    sync_batch_norm=True,
    cudnn=True,
    multi_tensor=True,
    flags=NO_PLUGINS,
    # As the reference run sets them (DeepSparkHub, PP-LCNet).
    defaults={
        "FLAGS_cudnn_exhaustive_search": "True",
        "FLAGS_cudnn_batchnorm_spatial_persistent": "True",
    },
)


def plugin(name: str) -> DeviceKind:
    """An accelerator that Paddle loads as a plugin (a custom device), such as iluvatar_gpu or npu."""
    return DeviceKind(
        name=name,
        title=name,
        plural=f"{name} devices",
        selection=f"{name.upper()}_VISIBLE_DEVICES",
        on_host=False,
        decoder=CPU_DECODER,
        backend="xccl",
        clock=PASSING_EVENTS,
        nvml=False,
        memory="device's memory",
        failure=r"CustomDevice error, the error code is : \d+",
        batch_size=GPU.batch_size,
        warmup_steps=GPU.warmup_steps,
        sixteen_bit=True,
        sync_batch_norm=False,
        cudnn=False,
        multi_tensor=False,
        flags={
            # Views with strides need kernels that plugins lack, such as `contiguous` of a boolean one.
            "FLAGS_use_stride_kernel": "0",
            # Errors have Paddle's stack: it tells a failed allocation, whose error code may be any other failure's.
            "FLAGS_call_stack_level": "2",
        },
    )


BUILT_IN = {kind.name: kind for kind in (CPU, GPU)}


def device_kind(name: str) -> DeviceKind:
    """The kind of this name; any name but cpu and gpu is a plugin's."""
    return BUILT_IN.get(name) or plugin(name)
