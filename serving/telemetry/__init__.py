"""What is counted, and what is told of requests: metrics, log lines, the slowest requests, traces.

``observing`` hears each request's end and ``metrics`` counts it; the rest is imported when it is asked for.
Nothing here keeps or shows a payload, and nothing blocks the event loop.
"""
