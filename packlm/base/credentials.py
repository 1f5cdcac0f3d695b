"""Removes credentials from texts that are logged or written."""

import re


def without_credentials(text: str) -> str:
    """The text with user names, passwords and tokens in URLs replaced by `***`."""
    text = re.sub(r"://[^/@\s]*@", "://***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]+", r"\1***", text)
