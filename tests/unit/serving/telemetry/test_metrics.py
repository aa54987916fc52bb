import time

from serving.telemetry.metrics import MAX_VERSIONS, Metrics

EXPECTED = """\
# HELP nv_inference_request_success Requests answered well
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="digits",version="1"} 2
# HELP nv_inference_count Inferences, a batch of n counting n
# TYPE nv_inference_count counter
nv_inference_count{model="digits",version="1"} 5
# HELP nv_inference_exec_count Calls of the engine
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{model="digits",version="1"} 2
# HELP nv_inference_request_duration_us Time of answered requests
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="digits",version="1"} 503000
# HELP nv_inference_queue_duration_us Time spent waiting
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="digits",version="1"} 1500
# HELP nv_inference_compute_input_duration_us Time to decode
# TYPE nv_inference_compute_input_duration_us counter
nv_inference_compute_input_duration_us{model="digits",version="1"} 0
# HELP nv_inference_compute_infer_duration_us Time in the engine
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{model="digits",version="1"} 0
# HELP nv_inference_compute_output_duration_us Time to encode
# TYPE nv_inference_compute_output_duration_us counter
nv_inference_compute_output_duration_us{model="digits",version="1"} 0
# HELP nv_cache_num_hits_per_model Requests answered with a kept answer
# TYPE nv_cache_num_hits_per_model counter
nv_cache_num_hits_per_model{model="digits",version="1"} 0
# HELP nv_cache_num_misses_per_model Requests without a kept answer
# TYPE nv_cache_num_misses_per_model counter
nv_cache_num_misses_per_model{model="digits",version="1"} 0
# HELP nv_cache_hit_duration_per_model Time to look up kept answers
# TYPE nv_cache_hit_duration_per_model counter
nv_cache_hit_duration_per_model{model="digits",version="1"} 0
# HELP nv_cache_miss_duration_per_model Time to look up in vain
# TYPE nv_cache_miss_duration_per_model counter
nv_cache_miss_duration_per_model{model="digits",version="1"} 0
# HELP penstock_model_loads_total Times it was loaded
# TYPE penstock_model_loads_total counter
penstock_model_loads_total{model="digits",version="1"} 0
# HELP penstock_model_evictions_total Times it made room for other models
# TYPE penstock_model_evictions_total counter
penstock_model_evictions_total{model="digits",version="1"} 0
# HELP nv_inference_pending_request_count Requests waiting or in the engine
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="digits",version="1"} 1
# HELP nv_inference_request_failure Requests that got an error
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="digits",version="1",reason="BACKEND"} 0
nv_inference_request_failure{model="digits",version="1",reason="CANCELED"} 0
nv_inference_request_failure{model="digits",version="1",reason="OTHER"} 1
nv_inference_request_failure{model="digits",version="1",reason="REJECTED"} 0
# HELP penstock_request_duration_seconds Time from a request's last byte to its answer
# TYPE penstock_request_duration_seconds histogram
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.0005"} 0
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.001"} 0
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.0025"} 0
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.005"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.01"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.025"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.05"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.1"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.25"} 1
penstock_request_duration_seconds_bucket{model="digits",version="1",le="0.5"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="1.0"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="2.5"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="5.0"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="10.0"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="30.0"} 2
penstock_request_duration_seconds_bucket{model="digits",version="1",le="+Inf"} 2
penstock_request_duration_seconds_sum{model="digits",version="1"} 0.503
penstock_request_duration_seconds_count{model="digits",version="1"} 2
# HELP penstock_batch_size Rows that the engine was given at once
# TYPE penstock_batch_size histogram
penstock_batch_size_bucket{model="digits",version="1",le="1"} 0
penstock_batch_size_bucket{model="digits",version="1",le="2"} 1
penstock_batch_size_bucket{model="digits",version="1",le="4"} 2
penstock_batch_size_bucket{model="digits",version="1",le="8"} 2
penstock_batch_size_bucket{model="digits",version="1",le="16"} 2
penstock_batch_size_bucket{model="digits",version="1",le="32"} 2
penstock_batch_size_bucket{model="digits",version="1",le="64"} 2
penstock_batch_size_bucket{model="digits",version="1",le="128"} 2
penstock_batch_size_bucket{model="digits",version="1",le="256"} 2
penstock_batch_size_bucket{model="digits",version="1",le="+Inf"} 2
penstock_batch_size_sum{model="digits",version="1"} 5
penstock_batch_size_count{model="digits",version="1"} 2
"""


def test_the_text_has_tritons_names_and_a_histogram_of_our_own() -> None:
    metrics = Metrics()
    counters = metrics.of("digits", "1")
    counters.succeeded(0.003)
    counters.succeeded(0.5)
    counters.failed("OTHER")
    counters.executed(2, 0, 0)
    counters.executed(3, 0, 0)
    counters.pending, counters.queue_s = 1, 0.0015

    text = metrics.text()

    assert text[: len(EXPECTED)] == EXPECTED
    assert text[len(EXPECTED) :].startswith("# HELP process_cpu_seconds_total ")


def test_the_counters_of_a_version_outlive_its_reloads() -> None:
    metrics = Metrics()

    assert metrics.of("digits", "1") is metrics.of("digits", "1")
    assert metrics.of("digits", "1") is not metrics.of("digits", "2")


def test_versions_beyond_what_a_scrape_can_hold_are_counted_together() -> None:
    metrics = Metrics()
    for version in range(MAX_VERSIONS):
        metrics.of("m", str(version)).succeeded(1)

    for version in range(5):
        metrics.of("m", f"new-{version}").succeeded(1)

    assert metrics.of("m", "7").successes == 1
    assert metrics.of("m", "new-0") is metrics.of("other", "other")
    assert 'nv_inference_request_success{model="other",version="other"} 5\n' in metrics.text()


def test_what_the_process_uses_is_shown_under_prometheus_own_names() -> None:
    lines = [line.split() for line in Metrics().text().splitlines() if line.startswith("process_")]
    values = {name: float(value) for name, value in lines}

    assert list(values) == [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ]
    assert values["process_cpu_seconds_total"] > 0
    assert 2**20 < values["process_resident_memory_bytes"] <= values["process_virtual_memory_bytes"]
    assert 0 < values["process_open_fds"] <= values["process_max_fds"]
    assert 0 < time.time() - values["process_start_time_seconds"] < 86400
