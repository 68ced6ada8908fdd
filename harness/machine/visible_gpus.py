"""Which of the machine's GPUs a process may use: what CUDA_VISIBLE_DEVICES names, in CUDA's order."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.errors import MachineError
from harness.machine.nvml import Gpu


def visible_gpus(all_gpus: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows under this CUDA_VISIBLE_DEVICES, in CUDA's order. None (unset) shows all of them.

    Numbers count the GPUs in PCI bus order, as CUDA does under CUDA_DEVICE_ORDER=PCI_BUS_ID; the workers get the result
    by UUID, so that they use the GPUs that are measured, whatever CUDA counts by. Names are "GPU-<uuid>" or a beginning
    of it that fits one GPU only. The first entry settles which of the two the list holds. An entry that names no GPU
    ends the list; a GPU named twice leaves none visible.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; it doesn't say what becomes of mixed lists and of
    duplicates, so the cautious reading stands here. Raises MachineError for a MIG slice.
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
                f"CUDA_VISIBLE_DEVICES names the MIG slice {entry}, and the load of a slice can't be measured.",
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
    """Sorts "00000000:17:00.0" by domain, bus, device, function; a GPU without a bus id goes by its index."""
    return [int(part, 16) for part in re.findall("[0-9A-Fa-f]+", gpu.pci_bus_id)], gpu.index
