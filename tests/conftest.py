import hypothesis

pytest_plugins = ["tests.rig.fixtures"]

# How long an example takes says something of the machine and what else it does.
hypothesis.settings.register_profile("penstock", deadline=None)
hypothesis.settings.load_profile("penstock")
