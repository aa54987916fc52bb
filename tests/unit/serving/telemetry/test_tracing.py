import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind

from serving.telemetry.tracing import Roots


class OfAnotherPackage(Sampler):
    """A sampler that nothing is known of."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "mine: ParentBased{root:TraceIdRatioBased{0.5}}"


@pytest.mark.parametrize("ratio", [0.01, 0.3])
@pytest.mark.parametrize("around", [lambda sampler: sampler, ParentBased])
def test_trace_ids_of_roots_are_those_that_a_sampler_of_a_share_takes(ratio: float, around: type) -> None:
    sampler: Sampler = around(TraceIdRatioBased(ratio))
    roots = Roots(sampler)

    ids = [roots.trace_id() for _ in range(1000)]

    assert roots.share == ratio
    assert len(set(ids)) == len(ids)
    assert max(ids) < 2**128
    taken = [sampler.should_sample(Context(), trace_id, "infer", SpanKind.SERVER).decision for trace_id in ids]
    assert set(taken) == {Decision.RECORD_AND_SAMPLE}


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0)])
def test_who_samples_nothing_is_never_asked(sampler: Sampler) -> None:
    assert Roots(sampler).share == 0


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ParentBased(ALWAYS_ON), TraceIdRatioBased(1), OfAnotherPackage()])
def test_who_may_sample_anything_is_asked_about_everything(sampler: Sampler) -> None:
    roots = Roots(sampler)

    assert roots.share == 1
    assert len({roots.trace_id() for _ in range(1000)} - {0}) == 1000
