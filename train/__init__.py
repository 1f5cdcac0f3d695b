"""Recurrent language models: the model, how a batch of segments runs through it, and how it is trained."""
