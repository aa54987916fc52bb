"""What executes a model: one module an engine, all behind ``base.Engine``."""
