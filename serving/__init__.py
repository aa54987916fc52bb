"""What runs beside a model: protocols, engines, the queue between them, storage.

Here belongs everything a serving container needs. Never here: anything that decides what should run
(that is ``operators``, which this package must not import).
"""
