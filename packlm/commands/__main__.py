"""`python -m packlm.commands VERB ...` is `packlm VERB ...`."""

from packlm.commands import main

if __name__ == "__main__":
    main()
