"""What Doorward runs with. Reading it writes nothing; every variable is in docs/settings.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
from csp.constants import NONE, SELF

from doorward import environment, keys
from doorward.environment import SettingRefused

# -- where everything lives ------------------------------------------------------------------------

DATA = Path(
    environment.text(
        "DOORWARD_DATA",
        "data",
        "The folder that holds everything: database, keys, mail, definitions.",
    )
).absolute()
SECRET_KEY = keys.read(DATA, "secret").hex()
FIELD_KEY = keys.read(DATA, "field")
DEVICE_TOKEN_KEY = keys.read(DATA, "device-token")

# -- the two doors ---------------------------------------------------------------------------------

HOST = environment.text("DOORWARD_HOST", "127.0.0.1", "The address both doors listen on (--host).")
PORT = environment.number(
    "DOORWARD_PORT", 8000, "The port for people (--port).", least=1, most=65535
)
DEVICE_PORT = environment.number(
    "DOORWARD_DEVICE_PORT", 8001, "The port for devices (--device-port).", least=1, most=65535
)
PORTAL_PROCESSES = environment.number(
    "DOORWARD_PORTAL_PROCESSES", 1, "Processes behind the people's door.", least=1, most=64
)
PORTAL_THREADS = environment.number(
    "DOORWARD_PORTAL_THREADS", 32, "Pages answered at once by each of them.", least=1, most=64
)
GATEWAY_PROCESSES = environment.number(
    "DOORWARD_GATEWAY_PROCESSES", 1, "Processes behind the devices' door.", least=1, most=64
)
SITE_URL = environment.text(
    "DOORWARD_SITE_URL",
    f"http://localhost:{PORT}",
    "The address people type. Every link in a mail and the accepted host name derive from it.",
).rstrip("/")
_site = urlsplit(SITE_URL)
if _site.scheme not in {"http", "https"} or not _site.hostname or "*" in SITE_URL:
    raise SettingRefused(
        f"DOORWARD_SITE_URL is {SITE_URL!r}; "
        "it must be one full address such as https://safe.example.org."
    )
if _site.path or _site.query or _site.username:
    raise SettingRefused("DOORWARD_SITE_URL must be an address without a path, query or user name.")
LOOPBACK = _site.hostname in {"localhost", "127.0.0.1", "::1"}
SECURE = _site.scheme == "https"
ALLOW_INSECURE_SITE = environment.switch(
    "DOORWARD_ALLOW_INSECURE_SITE",
    False,
    "Allow an http:// site address that is not this machine. Passwords then travel in clear.",
)
if not SECURE and not LOOPBACK and not ALLOW_INSECURE_SITE:
    raise SettingRefused(
        "DOORWARD_SITE_URL starts with http://, so passwords would travel in clear. Use https:// "
        "(README: behind a proxy with TLS), or set DOORWARD_ALLOW_INSECURE_SITE=yes for a trial."
    )
DEVICE_URL = environment.text(
    "DOORWARD_DEVICE_URL",
    f"http://127.0.0.1:{DEVICE_PORT}" if LOOPBACK else SITE_URL,
    "The address devices call; the command on the add-device page names it.",
).rstrip("/")
ALLOWED_HOSTS = [_site.hostname, *(["localhost", "127.0.0.1", "[::1]"] if LOOPBACK else [])]
TRUSTED_PROXIES = environment.number(
    "DOORWARD_TRUSTED_PROXIES",
    0,
    "How many proxies of yours stand before Doorward and add to X-Forwarded-For.",
    least=0,
    most=10,
)

# -- name and look ---------------------------------------------------------------------------------

PRODUCT_NAME = environment.text(
    "DOORWARD_NAME", "Doorward", "What the product is called on every page."
)
BRAND_COLOR = environment.text(
    "DOORWARD_BRAND_COLOR", "", "The accent color as #rrggbb; empty for the built-in one."
)
SUPPORT_EMAIL = environment.text(
    "DOORWARD_SUPPORT_EMAIL", "", "Where people who can't sign in may write; shown on help pages."
)

# -- database --------------------------------------------------------------------------------------

DATABASE_URL = environment.text(
    "DOORWARD_DATABASE_URL",
    "",
    "postgres://user:password@host:port/name for PostgreSQL; empty for SQLite in the data folder.",
)


def _database() -> dict[str, Any]:
    if DATABASE_URL:
        try:
            parsed = dict(
                dj_database_url.parse(DATABASE_URL, conn_max_age=None, conn_health_checks=True)
            )
        except ValueError as error:
            raise SettingRefused(f"DOORWARD_DATABASE_URL can't be read: {error}") from None
        if parsed.get("ENGINE") != "django.db.backends.postgresql":
            raise SettingRefused(
                "DOORWARD_DATABASE_URL must start with postgres:// (or be empty for SQLite)."
            )
        return parsed
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "doorward.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            # A transaction that will write takes the lock first: it can't fail half-way.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=134217728"
            ),
        },
    }


DATABASES = {"default": _database()}
# In the database: a count kept in a process is forgotten at its end and unknown to its neighbor.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "accounts_cache",
        # Django's 300 would let anybody push out other people's counts by causing their own.
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- rooms -----------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "doorward.portal",
    "doorward.console",
    "doorward.api",
    "doorward.gateway",
    "doorward.support",
    "doorward.reports",
    "doorward.protection",
    "doorward.devices",
    "doorward.billing",
    "doorward.accounts",
    "doorward.notices",
    "doorward.audit",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.headless",
    "allauth.usersessions",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "doorward.portal.responses.SecurityHeaders",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "doorward.portal.responses.ContentPolicy",
    "doorward.portal.errors.explain_wrong_method",
    "doorward.portal.errors.tell_the_signed_out",
    "doorward.portal.errors.WaitForHashes",
    "doorward.portal.cookies.Sessions",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "doorward.portal.zones.PersonsZone",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "doorward.accounts.adapter.KnownBrowsers",
]
ROOT_URLCONF = "doorward.urls"
WSGI_APPLICATION = "doorward.portal.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "doorward.portal.context.site",
            ]
        },
    }
]
DEBUG = False
# No form is longer, nor an app's request: a password of a megabyte is refused before it is read, so
# that two hundred of them at once fill no memory (A10). Files are counted apart.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

# -- people and sessions ---------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"
PASSWORD_HASHERS = ["doorward.accounts.passwords.Argon2idHasher"]
SESSION_ENGINE = "doorward.accounts.session_store"
SESSION_COOKIE_AGE = 30 * 24 * 3600
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
# The __Host- prefix needs Secure, which not every browser accepts on http://localhost.
_prefix = "__Host-" if SECURE else ""
SESSION_COOKIE_NAME = f"{_prefix}dw_session"
BROWSER_COOKIE_NAME = f"{_prefix}dw_dev"
CSRF_COOKIE_NAME = f"{_prefix}dw_csrf"
LANGUAGE_COOKIE_NAME = f"{_prefix}dw_language"
REMEMBERED_COOKIE_NAME = f"{_prefix}dw_remembered"
THEME_COOKIE_NAME = f"{_prefix}dw_theme"
ZONE_COOKIE_NAME = f"{_prefix}dw_zone"
SELF_TEST_COOKIE_NAME = f"{_prefix}dw_test"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = [SITE_URL]
CSRF_FAILURE_VIEW = "doorward.portal.errors.csrf_failure"
BREACH_CHECK_URL = environment.text(
    "DOORWARD_BREACH_CHECK_URL",
    "",
    "The address of a range service that knows leaked passwords, asked with the first five hex "
    "digits of a SHA-1 (https://host/range); empty asks nobody.",
).rstrip("/")
if BREACH_CHECK_URL and urlsplit(BREACH_CHECK_URL).scheme != "https":
    raise SettingRefused("DOORWARD_BREACH_CHECK_URL must start with https://.")
FREE_SEATS = environment.number(
    "DOORWARD_DEFAULT_SEATS",
    5,
    "Devices covered by the plan a new account starts with.",
    least=1,
    most=1_000_000,
)
RECOVERY_DELAY_HOURS = environment.number(
    "DOORWARD_RECOVERY_DELAY_HOURS",
    72,
    "How long somebody waits, announced to them everywhere, who lost their second step.",
    least=24,
    most=720,
)


def _of_allauth(name: str, default: Any) -> Any:
    from django.conf import settings

    return getattr(settings, name, default)


# allauth reads its settings as often as it needs them, 35 times in a sign-in, and each time looks
# for this first: where it is not there, by an error that is caught.
ALLAUTH_SETTING_GETTER = _of_allauth
ACCOUNT_ADAPTER = "doorward.accounts.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
ACCOUNT_EMAIL_VERIFICATION_BY_CODE_TIMEOUT = 600
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_SESSION_REMEMBER = True
PASSWORD_RESET_TIMEOUT = 3600
AUTH_PASSWORD_VALIDATORS = [{"NAME": "doorward.accounts.password_rules.PasswordRules"}]
ACCOUNT_PASSWORD_RESET_TOKEN_GENERATOR = "doorward.accounts.link_tokens.LinkTokens"  # noqa: S105 - the name of a class
# What accounts/lockout.py counts, allauth need not; what is left it counts in the database above.
# Every figure is in docs/security/limits.md: a test compares also those that allauth may add.
ACCOUNT_RATE_LIMITS = {
    "login": None,
    "signup": None,
    "reset_password": None,
    "request_login_code": None,
    "confirm_email": None,
    "reauthenticate": None,
    # It takes the current password, or who has none is asked who they are: both are counted.
    "change_password": None,
    "login_failed": None,
    # Numbers are given on a page of ours (portal/number.py); allauth's are shut.
    "change_phone": None,
    "verify_phone": None,
    "manage_email": "10/m/user",
    "reset_password_from_key": "20/m/ip",
}
MFA_RATE_LIMITS = {"webauthn_login": "10/m/ip"}
# One address; a new one takes its place once it is confirmed (accounts/email_change.py).
ACCOUNT_CHANGE_EMAIL = True
# Back to where the address was changed: that page tells until when it can be taken back.
ACCOUNT_EMAIL_CONFIRMATION_AUTHENTICATED_REDIRECT_URL = "/email/"
ACCOUNT_MAX_EMAIL_ADDRESSES = 2
ACCOUNT_FORMS = {
    "add_email": "doorward.accounts.forms.NewAddressForm",
    "login": "doorward.accounts.forms.LoginForm",
    "signup": "doorward.accounts.forms.SignupForm",
    "change_password": "doorward.accounts.forms.ChangePasswordForm",
}
ACCOUNT_SIGNUP_FORM_CLASS = "doorward.accounts.signup_form.SignupExtras"
ACCOUNT_EMAIL_VERIFICATION_SUPPORTS_RESEND = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
# Also for addresses: whoever may change the address may have a new password sent to it (A24).
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_REAUTHENTICATION_TIMEOUT = 15 * 60
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGIN_BY_CODE_TIMEOUT = 600
ACCOUNT_LOGIN_BY_CODE_SUPPORTS_RESEND = True
ACCOUNT_LOGIN_BY_CODE_TRUST_ENABLED = True
USERSESSIONS_TRACK_ACTIVITY = False
# The second step: accounts/two_factor.py, accounts/factors/.
MFA_ADAPTER = "doorward.accounts.allauth_ways.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_PASSKEY_SIGNUP_ENABLED = True
MFA_TRUST_ENABLED = True
# A phone's clock may be 30 seconds off; accounts/factors/totp.py lets each code work once.
MFA_TOTP_TOLERANCE = 1
MFA_RECOVERY_CODES_SHOW_ONCE = True
HEADLESS_CLIENTS = ("app",)
HEADLESS_ONLY = False

# -- security headers ------------------------------------------------------------------------------

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if SECURE and TRUSTED_PROXIES else None
)
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
        "img-src": [SELF, "data:"],
        # To portal/policy_reports.py, by the new way and by the one Firefox and Safari still use.
        "report-to": "policy",
        "report-uri": "/policy-reports/",
    }
}

DEMO = environment.switch(
    "DOORWARD_DEMO", False, "Set by `doorward demo` alone: shows its mails to everyone on a page."
)
if DEMO and not LOOPBACK:
    raise SettingRefused("DOORWARD_DEMO shows every mail to everyone: only on this machine.")

# -- mail ------------------------------------------------------------------------------------------

EMAIL_URL = environment.text(
    "DOORWARD_EMAIL_URL",
    "file:",
    "file: writes each mail into the data folder's mail/; "
    "smtp://user:password@host:587?starttls or smtps:// sends it.",
)
# Off by default: NIST SP 800-63B-4, 3.2.9 calls codes by text message restricted.
SMS_URL = environment.text(
    "DOORWARD_SMS_URL",
    "",
    "Who texts codes: file: writes them into the data folder's sms/; https://... is posted "
    "each message. Empty: no codes by text message.",
)
SMS_SECRET = environment.text(
    "DOORWARD_SMS_SECRET", "", "Signs what is posted to DOORWARD_SMS_URL (X-Signature)."
)
if SMS_URL not in {"", "file:"}:
    if not SMS_URL.startswith("https://"):
        raise SettingRefused("DOORWARD_SMS_URL must be empty, file: or an https:// address.")
    if len(SMS_SECRET) < 16:
        raise SettingRefused("DOORWARD_SMS_SECRET must have at least 16 characters.")
DEFAULT_FROM_EMAIL = environment.text(
    "DOORWARD_EMAIL_FROM", f"no-reply@{_site.hostname}", "The sender of every mail."
)

# -- definitions -----------------------------------------------------------------------------------

DEFINITIONS_EARLY_HOURS = environment.number(
    "DOORWARD_DEFINITIONS_EARLY_HOURS",
    6,
    "How long a new set of definitions is with a few devices before all get it.",
    least=0,
    most=720,
)
CLAMAV_MIRROR = environment.text(
    "DOORWARD_CLAMAV_MIRROR",
    "",
    "A folder of ClamAV databases that the devices' door serves; empty serves none.",
)

# -- static files, language, time ------------------------------------------------------------------

STATIC_URL = "/static/"
STATIC_ROOT = DATA / "static"
STORAGES = {
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(Path(tempfile.gettempdir()) / "doorward-unused")},
    },
}
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
# Ours first: in English it holds what Django and allauth would say, in our voice.
LOCALE_PATHS = [Path(__file__).parent / "locale"]

# -- logs ------------------------------------------------------------------------------------------

LOG_FORMAT = environment.text("DOORWARD_LOG", "console", "console for people, json for machines.")
LOGGING_CONFIG = None
SILENCED_SYSTEM_CHECKS: list[str] = []
