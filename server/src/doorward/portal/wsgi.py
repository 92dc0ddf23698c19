"""The portal as granian loads it."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from doorward.settled import settle

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")

application = get_wsgi_application()

from doorward.portal.arrival import Arrivals  # noqa: E402 - its counts need what was set up above

arrivals = Arrivals(
    application,
    threads=settings.PORTAL_THREADS,
    longest=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
)

# Addresses and the views behind them are otherwise loaded by the first who ask.
get_resolver().check()
# The collector comes after 10,000 new objects, not after every 700: a page makes some thousand,
# nearly all of which die by themselves.
settle(look_after=(10_000, 20, 50))
