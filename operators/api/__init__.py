"""The API of ``penstock.dev/v1alpha1`` as frozen types, and the values that pass between planner and actuators.

Belongs here: what a user writes and reads (Model, Endpoint, ServingRuntime, status, conditions), what the
planner wants (Plan) and what was seen (Observation). Never here: decisions, clients, files, clocks.
"""
