"""`ssh me@gateway sluice ...`: live sessions controlled from another terminal.

No shell, process or file stands behind it: one line is read by a grammar of its own,
and each command is one operation of `apps.sessions`, as in the portal and the API.
"""
