"""Bytes to typed requests and answers to bytes, one module a protocol. Pure: no I/O, no model, no clock."""
