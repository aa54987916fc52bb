"""The data plane's brain: a route table in, a programmed HAProxy out.

``table`` and ``configuration`` are pure (what should be), ``workers`` compares that with what HAProxy reports and
says which commands are missing, ``agent`` does it. Why a Model gets the weight it gets is decided elsewhere
(``operators.planning``); where its servers run too (``operators.actuators``).
"""
