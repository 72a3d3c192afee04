"""The demo plant "Waterworks North": real SSH targets on loopback.

`plant` starts and stops them and needs neither Django nor a database, so that it
is up in well under a second and can run as a process of its own.
"""
