"""Session graphs of our own export, reduced to what the graphs of other exporters have."""

from __future__ import annotations

import onnx

from models.session.config import BLANK_EVENT


def reduced(graph: bytes, *, without: bool = False, cache: bool = False, blank: bool = False) -> bytes:
    """Keep of the optional parts of a graph only those named: masking, the KV cache, the blank event."""
    model = onnx.load_from_string(graph)
    dropped = {name for name, kept in (("without", without), ("state", cache)) if not kept}
    outputs = [output for output in model.graph.output if output.name not in dropped]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    if not blank:
        metadata = [each for each in model.metadata_props if each.key != BLANK_EVENT]
        del model.metadata_props[:]
        model.metadata_props.extend(metadata)
    return bytes(model.SerializeToString())
