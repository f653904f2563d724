"""The command ``volseg``: one module a command, for its arguments, and all that is shown on a terminal.

Heavy libraries are imported inside the command that needs them, so that ``volseg --help`` comes at once.
"""
