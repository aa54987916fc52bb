"""What a Model's contract means: pictures become tensors, and tensors scores or findings, wherever that is done.

The builder evaluates and calibrates with it, and ``penstock infer`` asks and reads answers with it, so that what was
proved of a variant is what people get of it. Here belongs what is a function of bytes or arrays and of
``spec.contract``; never here: files of samples, metrics, requests.
"""

from serving.errors import InvalidInput

__all__ = ["InvalidInput"]
