"""The settings that a DALI graph reports, read from its operators' own specifications."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from nvidia.dali.pipeline import Pipeline

from pipelines import auto_augment
from pipelines.settings import DALI_CROPS, DALI_RESIZE, FUSED_RESIZE, PADDLECLAS_CROPS, WHOLE_IMAGES

# How DALI writes an operator's specification, and what it calls decoders of regions and of whole images, and ours.
SCHEMA = re.compile(r"OpSpec for (?:experimental__)?(\w+):")
REGION_DECODER, WHOLE_DECODER = "decoders__ImageSlice", "decoders__Image"
FUSED_SCHEMA = "NumbaFuncImpl"
DECODERS = (REGION_DECODER, WHOLE_DECODER)
GPU_DECODER_ARGUMENTS = ("hw_decoder_load", "preallocate_width_hint", "preallocate_height_hint")
# The name of the operator that draws flips where nothing is cropped, by which `read_settings` knows such a graph.
WHOLE_FLIP = "flip_of_whole_image"


def read_settings(pipeline: Pipeline) -> dict[str, Any]:
    """The settings that a built pipeline reports, by PipelineSettings' names, and antialias: whether resizing smooths.

    All but decode_threads and prefetch are read from the operators' own specifications. Settings that are the GPU
    decoder's alone are None for a CPU's; preprocessing is None for a graph that draws neither crops nor flips, and
    antialias for one that doesn't resize.
    """
    operators = getattr(pipeline, "_ops", None) or ()
    specifications, names = [str(operator.spec) for operator in operators], {operator.name for operator in operators}
    by_schema = {found[1]: text for text in specifications if (found := SCHEMA.match(text))}
    decoder_name = next((name for name in DECODERS if name in by_schema), None)
    decoder = "" if decoder_name is None else by_schema[decoder_name]
    smoothed = _argument(by_schema.get("Resize", ""), "antialias")
    resize = FUSED_RESIZE if FUSED_SCHEMA in by_schema else DALI_RESIZE if "Resize" in by_schema else None
    load, width, height = (_argument(decoder, name) for name in GPU_DECODER_ARGUMENTS)
    return {
        "decode_threads": pipeline.num_threads,
        "prefetch": pipeline.prefetch_queue_depth,
        "decoder": _argument(decoder, "device"),
        "decode_region": None if decoder_name is None else decoder_name == REGION_DECODER,
        "hw_decoder_load": None if load is None else float(load),
        "width_hint": None if width is None else int(width),
        "height_hint": None if height is None else int(height),
        "preprocessing": _preprocessing(by_schema, names),
        "antialias": smoothed == "True" if resize == DALI_RESIZE else None if resize is None else False,
        "resize": resize,
        "auto_augment": by_schema.keys() >= set(auto_augment.SCHEMAS),
    }


def _preprocessing(schemas: Container[str], names: Container[str]) -> str | None:
    """What of an image a training graph uses, by its operators' schemas and names; None for another graph."""
    # AutoAugment draws from random__Uniform, too.
    if WHOLE_FLIP in names:
        return WHOLE_IMAGES
    if "RandomCropGenerator" in schemas:
        return DALI_CROPS
    return PADDLECLAS_CROPS if "random__Uniform" in schemas else None


def _argument(specification: str, name: str) -> str | None:
    """An argument in an operator's specification; None if it isn't there."""
    found = re.search(rf"^\s*{name}: (\S+)$", specification, re.MULTILINE)
    return None if found is None else found[1]
