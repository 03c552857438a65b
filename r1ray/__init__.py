"""r1ray: train reasoning models the way DeepSeek-R1 was trained, on Ray. Importing this package loads nothing heavy."""

__version__ = "0.1.0"
