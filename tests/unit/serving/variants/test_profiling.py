"""What a measurement is valid for."""

from __future__ import annotations

import pytest

from serving.variants.profiling import Machine, proven_for


@pytest.mark.parametrize(
    ("operators", "features", "valid_for"),
    [
        (["Conv", "Relu"], ["avx2", "avx512_vnni"], ()),
        (["Conv", "QuantizeLinear"], ["avx2"], ()),
        (["Conv", "QuantizeLinear"], ["avx2", "avx_vnni"], ("avx512_vnni", "avx_vnni")),
        (["MatMulInteger", "DynamicQuantizeLinear"], ["asimddp"], ("asimddp", "i8mm")),
    ],
)
def test_eight_bit_integers_are_proven_for_processors_that_multiply_them_as_this_one(
    operators: list[str], features: list[str], valid_for: tuple[str, ...]
) -> None:
    assert proven_for(operators, Machine("any", "any", tuple(features), 1)) == valid_for
