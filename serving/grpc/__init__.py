"""gRPC as HTTP/2 on a port of its own. Its messages are in ``protocols``, its calls over HTTP/1.1 in ``http``."""
