"""The names of the precisions that a model can be used in; known without torch, so that a wrong one is refused before it is imported."""

PRECISIONS = ("full", "bf16", "int8")
"""full: the weights as they are stored; the others are those of `serve.reduced`."""
