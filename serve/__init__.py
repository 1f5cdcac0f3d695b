"""Using a trained model: measuring it, scoring sentences, generating text; as commands, as a Python API and as a batch job."""
