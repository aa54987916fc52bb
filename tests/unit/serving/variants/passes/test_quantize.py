from __future__ import annotations

from onnx import GraphProto, TensorProto, helper

from serving.variants.passes import quantize


def graph(*nodes: tuple[str, str, str, str]) -> GraphProto:
    """Nodes of name, type, input and output, from ``x`` to ``y``."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    made = [helper.make_node(kind, source.split(), [target], name=name) for name, kind, source, target in nodes]
    return helper.make_graph(made, "g", tensors[:1], tensors[1:])


def test_what_decodes_a_detector_and_the_layers_before_it_are_left_out() -> None:
    detector = graph(
        ("body", "Conv", "x w0", "a"),
        ("act", "Relu", "a", "b"),
        ("boxes", "Conv", "b w1", "c"),
        ("certainty", "Conv", "b w2", "d"),
        ("sigmoid", "Sigmoid", "d", "e"),
        ("all", "Concat", "c e", "y"),
    )
    assert quantize.tail(detector) == ["sigmoid", "all"]
    assert quantize.last(detector) == ["boxes", "certainty"]


def test_the_only_layer_of_a_net_is_not_left_out() -> None:
    regression = graph(("layer", "Gemm", "x w", "a"), ("softmax", "Softmax", "a", "y"))
    assert quantize.tail(regression) == ["softmax"]
    assert quantize.last(regression) == []
