"""`python -m packlm VERB ...` is `packlm VERB ...`."""

from packlm.base import program


def main() -> None:
    """The entry point `packlm`."""
    program.run("packlm.commands")


if __name__ == "__main__":
    main()
