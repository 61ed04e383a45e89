"""The command line: one file per command, the table of commands in `main`.

Asks `compose` for everything; computes nothing. Nothing is imported here, and `main` imports a command's file when
that command is called, so that `millrace --help` stays light.
"""
