"""``penstock conformance URL``: what a running server can do of what an engine of Penstock may be asked, and what not.

``checks`` keeps the list; the modules beside it fill it, an area each: ``rest``, ``rpc``, ``mistakes``, ``together``
(requests that share calls), ``watched`` (metrics) and ``closed`` (what no client may do). A check knows nothing but the
wire, so that it judges every server alike. ``target`` is what they ask, ``report`` what is told of it.
"""
