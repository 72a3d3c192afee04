#!/usr/bin/env python3
"""Run Sluice's management commands: `manage.py help` lists them."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    # The demo has a data directory of its own, which it names to its children.
    is_demo = sys.argv[1:2] == ["demo"]
    os.environ.setdefault(
        "DJANGO_SETTINGS_MODULE",
        "jumpserver.demo.parent_settings" if is_demo else "jumpserver.settings",
    )
    execute_from_command_line(sys.argv)
