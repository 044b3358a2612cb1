"""Entry point of `python -m hesse`, the command line."""

import os
import sys

if __name__ == "__main__":
    # `python -m` searches the working folder first: a file yaml.py beside the data would be run. The installed command
    # `hesse` does not. If Hesse itself is there, the folder is searched last.
    if not sys.flags.safe_path:
        folder = sys.path.pop(0)
        if folder == os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
            sys.path.append(folder)
    from hesse.cli.entry import main

    main()
