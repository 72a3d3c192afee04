"""Django settings of the demo's parent process, which touches no data itself.

It starts the plant and the product as processes of their own and is their client; the
product's settings would open the default data directory and take a second to load.
"""

import secrets

# Nothing is signed here; Django wants one.
SECRET_KEY = secrets.token_urlsafe(48)
INSTALLED_APPS = ["jumpserver"]
USE_TZ = True
