"""What is told of requests and counters beyond ``/metrics``: log lines, the slowest requests, traces, OTLP metrics.

Here belongs what listens at the end of a request (``serving.observing``); what counts is in ``serving.metrics``.
Nothing in it keeps or shows a payload, and nothing blocks the event loop.
"""
