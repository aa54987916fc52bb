"""The tests of Penstock, one folder a tier; ``tests/tiers.py`` says what each tier needs.

Test modules mirror source modules. What tests are run against (the real control plane, the fault proxy) is in
``tests/rig``; fakes of what we own live beside the real thing.
"""
