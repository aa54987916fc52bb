"""REST, and unary gRPC as HTTP/1.1 with trailers, on one port.

``protocol`` answers inference, health and metrics itself; ``application`` (FastAPI) has the rest.
"""
