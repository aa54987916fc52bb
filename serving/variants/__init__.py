"""From one model to cheaper forms of it, each with the proof that it is good enough and what it costs.

Here belongs what makes a variant (``passes``), what it answers on the user's data (``datasets``, ``metrics``,
``evaluation``), what it costs on this hardware (``profiling``), the rule it must pass (``gate``), and what runs all of
that once and no more (``building``, ``stages``). Nothing here serves a request, and nothing that serves imports this.
"""
