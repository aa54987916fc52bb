"""Fuzzing of everything that eats a client's or an artifact's bytes.

``parsers`` says for each of them what may come of any bytes whatever; ``connection`` does so for a whole HTTP
connection. ``make fuzz SECONDS=3600`` searches with atheris (libFuzzer for Python), one parser after the other;
``tests/unit/fuzz`` goes through all that is kept each time the unit tier runs: what was found once stays found.
"""
