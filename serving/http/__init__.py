"""REST, and unary gRPC as HTTP/1.1 with trailers, on one port.

``protocol`` answers inference, health, metrics and what describes a model; ``application`` (FastAPI) has the rest.
"""
