"""The product's own settings on a throw-away data directory.

pytest-django reads settings before any conftest is imported, so the environment is
prepared here. What a caller has set already (`DATABASE_URL` above all) is kept.
"""

import base64
import os
import secrets
import tempfile

TEST_DATA_DIR = tempfile.mkdtemp(prefix="sluice-tests-")

os.environ["SLUICE_DATA_DIR"] = TEST_DATA_DIR
# Production asks for these two, and the suite also runs on PostgreSQL.
os.environ.setdefault("SLUICE_SECRET_KEY", secrets.token_urlsafe(48))
os.environ.setdefault(
    "SLUICE_VAULT_KEY", base64.b64encode(secrets.token_bytes(32)).decode()
)
# The demo plant lives on loopback and the portal answers over plain HTTP there.
os.environ.setdefault("SLUICE_ALLOW_LOCAL_TARGETS", "yes")
os.environ.setdefault("SLUICE_ALLOW_HTTP", "yes")
os.environ.setdefault("SLUICE_PORTAL_PORT", "0")
os.environ.setdefault("SLUICE_SSH_PORT", "0")

from jumpserver.settings import *  # noqa: E402, F403

# pytest-django has put the name of this module there. A process that a test starts
# must run on the product's settings, in the data directory that the test gives it.
os.environ["DJANGO_SETTINGS_MODULE"] = "jumpserver.settings"

PASSWORD_HASHERS = ["tests.hashers.CheapArgon2PasswordHasher"]
