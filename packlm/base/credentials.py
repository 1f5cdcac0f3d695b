"""Keeping credentials out of what is printed and written."""

import re


def without_credentials(text: str) -> str:
    """The text with user names, passwords and tokens in addresses replaced by `***`."""
    text = re.sub(r"://[^/@\s]*@", "://***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]+", r"\1***", text)
