"""Django settings: one file, read from the environment (see `docs/settings.md`).

Without `DATABASE_URL` this is the embedded mode: SQLite and generated secrets in the
data directory. With it, the production mode: every secret must be given.
"""

import base64
import secrets
from pathlib import Path

from jumpserver.env import (
    env_bool,
    env_choice,
    env_database,
    env_int,
    env_list,
    env_path,
    env_secret,
    env_str,
    kept_secret,
)

BASE_DIR = Path(__file__).resolve().parent.parent

SLUICE_DATA_DIR = env_path(
    "SLUICE_DATA_DIR",
    default=BASE_DIR / "var",
    shown_default="var/ beside manage.py",
    explain="Where everything that must survive a restart lives in the embedded mode.",
)
SLUICE_DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
_SECRETS_DIR = SLUICE_DATA_DIR / "secrets"

DATABASES = {
    "default": env_database(
        "DATABASE_URL",
        sqlite_path=SLUICE_DATA_DIR / "sluice.sqlite3",
        explain="postgresql://user:password@host:port/name; unset means SQLite.",
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
EMBEDDED = DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3"

SECRET_KEY = env_secret(
    "SLUICE_SECRET_KEY",
    generate=kept_secret(
        _SECRETS_DIR / "django-secret-key", lambda: secrets.token_urlsafe(48)
    )
    if EMBEDDED
    else None,
    explain="Signs the portal's cookies. Made at first start in embedded mode.",
)
SLUICE_VAULT_KEY = env_secret(
    "SLUICE_VAULT_KEY",
    generate=kept_secret(
        _SECRETS_DIR / "vault-key",
        lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    )
    if EMBEDDED
    else None,
    explain="Base64 of 32 random bytes: the key that wraps every secret in the vault. "
    "Keep a copy outside the machine: without it no stored secret can be opened.",
)

REDIS_URL = env_str(
    "REDIS_URL",
    default="",
    explain="redis://host:port/db for the Celery broker and the browser fan-out; "
    "unset means in-process (one process only).",
)

PORTAL_HOST = env_str(
    "SLUICE_PORTAL_HOST", default="127.0.0.1", explain="Address the portal listens on."
)
PORTAL_PORT = env_int(
    "SLUICE_PORTAL_PORT",
    default=8443,
    minimum=0,
    maximum=65535,
    explain="Port the portal listens on; 0 takes a free one.",
)
PORTAL_URL = env_str(
    "SLUICE_PORTAL_URL",
    default="",
    explain="Address people type, such as https://gate.north.example; "
    "empty means http://HOST:PORT of this process.",
)
PORTAL_TLS_CERTIFICATE = env_str(
    "SLUICE_PORTAL_TLS_CERTIFICATE",
    default="",
    explain="PEM file with the portal's certificate chain; empty behind a TLS proxy.",
)
PORTAL_TLS_KEY = env_str(
    "SLUICE_PORTAL_TLS_KEY", default="", explain="PEM file with that certificate's key."
)
SSH_HOST = env_str(
    "SLUICE_SSH_HOST",
    default="127.0.0.1",
    explain="Address the SSH gateway listens on.",
)
SSH_PORT = env_int(
    "SLUICE_SSH_PORT",
    default=2222,
    minimum=0,
    maximum=65535,
    explain="Port the SSH gateway listens on; 0 takes a free one.",
)
SSH_PUBLIC_HOST = env_str(
    "SLUICE_SSH_PUBLIC_HOST",
    default="",
    explain="Host name people give to ssh; empty means SLUICE_SSH_HOST.",
)
GATEWAY_NAME = env_str(
    "SLUICE_GATEWAY_NAME",
    default="gateway-1",
    explain="Name of this gateway; unique among the gateways of one database.",
)
GATEWAY_SITE = env_str(
    "SLUICE_GATEWAY_SITE",
    default="",
    explain="Short name of the site whose banner this gateway shows before the "
    "sign-in; empty means that of all sites.",
)
ALLOW_HTTP = env_bool(
    "SLUICE_ALLOW_HTTP",
    default=False,
    explain="Serve the portal without TLS and let cookies travel over plain HTTP. "
    "For a demo on one machine only; `check --deploy` rejects it.",
)
ALLOW_LOCAL_TARGETS = env_bool(
    "SLUICE_ALLOW_LOCAL_TARGETS",
    default=False,
    explain="Let assets have loopback, link-local or metadata addresses. "
    "For a demo on one machine only; `check --deploy` rejects it.",
)
GRANT_STEP_MINUTES = env_int(
    "SLUICE_GRANT_STEP_MINUTES",
    default=5,
    minimum=1,
    maximum=60,
    explain="Access is asked for and granted in multiples of so many minutes.",
)
GRANT_MAXIMUM_MINUTES = env_int(
    "SLUICE_GRANT_MAXIMUM_MINUTES",
    default=480,
    minimum=5,
    maximum=1440,
    explain="Longest access that can be asked for.",
)
REQUEST_LAPSES_AFTER_HOURS = env_int(
    "SLUICE_REQUEST_LAPSES_AFTER_HOURS",
    default=24,
    minimum=1,
    maximum=720,
    explain="A request that nobody answers lapses after so many hours.",
)
WORK_ORDER_PATTERN = env_str(
    "SLUICE_WORK_ORDER_PATTERN",
    default=r"[A-Z]{2,5}-[0-9]{1,10}",
    explain="Regular expression a work-order number must match as a whole.",
)
SSH_LOGIN_GRACE_SECONDS = env_int(
    "SLUICE_SSH_LOGIN_GRACE_SECONDS",
    default=60,
    minimum=5,
    maximum=600,
    explain="A connection that has not signed in after so many seconds is closed.",
)
SSH_PREAUTH_PER_ADDRESS = env_int(
    "SLUICE_SSH_PREAUTH_PER_ADDRESS",
    default=10,
    minimum=1,
    maximum=10000,
    explain="Connections of one address that may be signing in at the same time.",
)
SSH_PREAUTH_TOTAL = env_int(
    "SLUICE_SSH_PREAUTH_TOTAL",
    default=200,
    minimum=1,
    maximum=100000,
    explain="Connections that may be signing in at the same time, in all.",
)
STOP_GRACE_SECONDS = env_int(
    "SLUICE_STOP_GRACE_SECONDS",
    default=3,
    minimum=0,
    maximum=3600,
    explain="A gateway told to stop (SIGTERM) lets sessions end as their assets' end "
    "modes say for so many seconds, then closes them.",
)
ESCAPE = env_choice(
    "SLUICE_ESCAPE",
    default="^]",
    choices=frozenset({"^]", "^^", "^_", "off"}),
    explain="What begins a command to Sluice at the start of a line on a terminal.",
)
IDLE_LOCK_MINUTES = env_int(
    "SLUICE_IDLE_LOCK_MINUTES",
    default=15,
    minimum=0,
    maximum=1440,
    explain="Without typing for so long terminals lock until a one-time code is typed, "
    "where the zone says nothing else; 0 is never.",
)
IDLE_END_MINUTES = env_int(
    "SLUICE_IDLE_END_MINUTES",
    default=0,
    minimum=0,
    maximum=1440,
    explain="Without typing or data for so long a session ends, where the zone says "
    "nothing else; 0 is never.",
)
TARGET_CONNECT_SECONDS = env_int(
    "SLUICE_TARGET_CONNECT_SECONDS",
    default=20,
    minimum=2,
    maximum=300,
    explain="Longest time to reach a target: TCP, key exchange and log-in together.",
)
CERTIFICATE_LOGIN_SECONDS = env_int(
    "SLUICE_CERTIFICATE_LOGIN_SECONDS",
    default=30,
    minimum=5,
    maximum=600,
    explain="A session's certificate is good for log-in for so many seconds (never "
    "past the deadline); afterwards it is dead by itself.",
)
WATCHDOG_SECONDS = env_int(
    "SLUICE_WATCHDOG_SECONDS",
    default=3,
    minimum=1,
    maximum=30,
    explain="Every live session's decision is made again at least this often.",
)
GATEWAY_LOST_SECONDS = env_int(
    "SLUICE_GATEWAY_LOST_SECONDS",
    default=4,
    minimum=3,
    maximum=600,
    explain="A gateway silent for so long is lost: its sessions are closed as such.",
)
DATABASE_GRACE_SECONDS = env_int(
    "SLUICE_DATABASE_GRACE_SECONDS",
    default=300,
    minimum=0,
    maximum=86400,
    explain="With the database away, live sessions end after so many seconds.",
)
TRUSTED_PROXIES = env_int(
    "SLUICE_TRUSTED_PROXIES",
    default=0,
    minimum=0,
    maximum=10,
    explain="How many proxies in front of the portal add to X-Forwarded-For; "
    "0 ignores the header.",
)
LOG_LEVEL = env_choice(
    "SLUICE_LOG_LEVEL",
    default="INFO",
    choices=frozenset({"DEBUG", "INFO", "WARNING", "ERROR"}),
    explain="How much the processes log to standard error.",
)

DEBUG = False
ALLOWED_HOSTS = env_list(
    "SLUICE_ALLOWED_HOSTS",
    default=["127.0.0.1", "localhost", "[::1]"],
    explain="Host names the portal answers to.",
)
CSRF_TRUSTED_ORIGINS = [PORTAL_URL] if PORTAL_URL.startswith("https://") else []

RECORDINGS_DIR = env_path(
    "SLUICE_RECORDINGS_DIR",
    default=SLUICE_DATA_DIR / "recordings",
    shown_default="recordings/ in the data directory",
    explain="Where recordings are written.",
)
QUARANTINE_DIR = env_path(
    "SLUICE_QUARANTINE_DIR",
    default=SLUICE_DATA_DIR / "quarantine",
    shown_default="quarantine/ in the data directory",
    explain="Where uploads that are held for release are kept, encrypted.",
)
HELD_UPLOAD_DAYS = env_int(
    "SLUICE_HELD_UPLOAD_DAYS",
    default=7,
    minimum=1,
    maximum=365,
    explain="Days after which a held upload that was not delivered is deleted.",
)

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "axes",
    "csp",
    "channels",
    "apps.audit",
    "apps.accounts",
    "apps.inventory",
    "apps.vault",
    "apps.access",
    "apps.sessions",
    "apps.recordings",
    "apps.quarantine",
    "apps.gateway",
    "apps.portal",
    "jumpserver",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "apps.portal.middleware.VerifiedMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "jumpserver.urls"
ASGI_APPLICATION = "jumpserver.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": False,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "apps.portal.context.navigation",
            ],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    ["django.template.loaders.filesystem.Loader"],
                )
            ],
            "libraries": {"sluice": "apps.portal.templatetags.sluice"},
        },
    }
]

AUTH_USER_MODEL = "accounts.User"
# The handle is unique whatever its case, by a constraint that this check cannot read.
# Sluice speaks for its own host name alone, not for its site's whole domain.
SILENCED_SYSTEM_CHECKS = ["auth.W004", "security.W005", "security.W021"]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation."
        "UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["username", "full_name", "email"]},
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "portal:sign-in"
LOGIN_REDIRECT_URL = "portal:my-access"

# One person signing in badly must not lock another out of the same address.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "apps.portal.views.signin.locked_out"
# The same address everywhere. ipware's proxy count would take the entry that the
# client itself wrote into X-Forwarded-For, one name for each guess.
AXES_CLIENT_IP_CALLABLE = "apps.portal.source.source_address"
AXES_SENSITIVE_PARAMETERS = ["password", "otp_token"]
AXES_VERBOSE = False
OTP_TOTP_ISSUER = "Sluice"
# Following a phone's clock would move the window of acceptable codes unseen.
OTP_TOTP_SYNC = False
OTP_TOTP_THROTTLE_FACTOR = 1

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not ALLOW_HTTP
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = "sluice_session"
CSRF_COOKIE_NAME = "sluice_csrf"
SESSION_COOKIE_AGE = 8 * 3600
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 0 if ALLOW_HTTP else 31536000
SECURE_SSL_REDIRECT = not ALLOW_HTTP
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
)
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "manifest-src": ["'self'"],
    }
}

STATIC_URL = "/static/"
STATIC_ROOT = SLUICE_DATA_DIR / "static"
_NODE = BASE_DIR / "node_modules"
STATICFILES_DIRS = [
    BASE_DIR / "static",
    ("xterm", _NODE / "@xterm" / "xterm" / "lib"),
    ("xterm-css", _NODE / "@xterm" / "xterm" / "css"),
    ("xterm-addon-fit", _NODE / "@xterm" / "addon-fit" / "lib"),
    ("asciinema-player", _NODE / "asciinema-player" / "dist" / "bundle"),
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# `collectstatic` is for a portal behind a web server; otherwise files come from here.
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

CELERY_BROKER_URL = REDIS_URL or "memory://localhost"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_TRANSPORT_OPTIONS = {} if REDIS_URL else {"polling_interval": 0.05}
CELERY_BEAT_SCHEDULE = {
    "access-sweep": {"task": "access.sweep", "schedule": 10.0},
    "sessions-sweep": {"task": "sessions.sweep", "schedule": 5.0},
    "vault-sweep": {"task": "vault.sweep", "schedule": 20.0},
    "recordings-verify": {"task": "recordings.verify_sealed", "schedule": 5.0},
    "quarantine-sweep": {"task": "quarantine.sweep", "schedule": 20.0},
}

LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # asyncssh logs every connection at INFO, with user names before log-in.
        "asyncssh": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        # A stranger's wrong Host header is answered; it may not fill the log.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "celery": {"level": "WARNING"},
        "paramiko": {"level": "ERROR"},
    },
}
