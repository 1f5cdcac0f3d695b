"""`python -m packlm.commands VERB ...` is `packlm VERB ...`."""

from packlm.base import program

if __name__ == "__main__":
    program.run("packlm.commands")
