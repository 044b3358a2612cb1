"""Entry point of `python -m hesse`, the command line."""

from hesse.cli.app import main

if __name__ == "__main__":
    main()
