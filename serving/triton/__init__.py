"""Triton as an engine: its server in front of the engines of this package, which its Python backend runs.

Here belongs what turns a model's file and settings into a Triton repository (``config``, ``repository``), what Triton
runs in it (``backend``), and its process (``server``). Nothing else of this package knows of Triton.
"""
