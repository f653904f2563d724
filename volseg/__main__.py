"""``python -m volseg``: the command ``volseg``."""

from volseg.cli.main import main

if __name__ == "__main__":
    main()
