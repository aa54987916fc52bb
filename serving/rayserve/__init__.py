"""Ray Serve as an engine: its proxies and replicas around the engines and queues of this package.

Here belongs what a replica answers (``answering``), the application that Serve deploys (``application``), what its
proxies need (``proxy``), and a Ray of one machine (``server``). Nothing else of this package knows of Ray.
"""
