"""Finds the GPUs that a process may use: those in CUDA_VISIBLE_DEVICES, in CUDA's order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.errors import MachineError
from harness.machine.nvml import Gpu


def visible_gpus(all_gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """Returns the GPUs that this CUDA_VISIBLE_DEVICES makes visible, in CUDA's order; all of them for None (unset).

    Numbers refer to GPUs in PCI bus order, as CUDA does with CUDA_DEVICE_ORDER=PCI_BUS_ID; the workers get the result
    by UUID, so that they use the GPUs that are measured, whatever order CUDA uses. Names are "GPU-<uuid>" or a unique
    beginning of it. The first entry decides whether the list holds numbers or names. An entry that names no GPU ends
    the list; with a GPU named twice no GPU is visible.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables". It doesn't define mixed lists and duplicates, so
    they are interpreted cautiously here. Raises MachineError for a MIG slice.
    """
    in_bus_order = sorted(all_gpus, key=_pci_position)
    if cuda_visible_devices is None:
        return tuple(in_bus_order)
    entries = [entry.strip() for entry in cuda_visible_devices.split(",")]
    by_number = _is_number(entries[0])
    shown: list[Gpu] = []
    for entry in entries:
        if entry.startswith("MIG-"):
            raise MachineError(
                f"CUDA_VISIBLE_DEVICES names the MIG slice {entry}, but the load of a slice can't be measured",
                "Name whole GPUs, by number or as GPU-<uuid> (nvidia-smi -L lists them).",
            )
        if _is_number(entry) != by_number:
            break
        if by_number:
            matches = in_bus_order[int(entry) : int(entry) + 1]
        else:
            matches = [gpu for gpu in in_bus_order if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
        if len(matches) != 1:
            break
        shown += matches
    return tuple(shown) if len(set(shown)) == len(shown) else ()


def _is_number(entry: str) -> bool:
    return entry.isascii() and entry.isdigit()


def _pci_position(gpu: Gpu) -> tuple[list[int], int]:
    """Returns a sort key: domain, bus, device and function of "00000000:17:00.0", or the index without a bus id."""
    return [int(part, 16) for part in re.findall("[0-9A-Fa-f]+", gpu.pci_bus_id)], gpu.index
