"""Settings of all tests."""

from hypothesis import settings

# A slow machine is no wrong answer.
settings.register_profile("packlm", deadline=None)
settings.load_profile("packlm")
