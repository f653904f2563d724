"""The command ``volseg``: argument parsing only, one file a command.

Heavy libraries are imported inside the command that needs them, so that ``volseg --help`` comes at once.
"""
