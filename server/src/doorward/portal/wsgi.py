"""The portal as granian loads it."""

import gc
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")

application = get_wsgi_application()

from doorward.portal.arrival import Arrivals  # noqa: E402 - its counts need what was set up above

arrivals = Arrivals(
    application,
    threads=settings.PORTAL_THREADS,
    longest=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
)

# What was loaded stays: the collector need not walk through half a million objects again and again,
# nor copy the pages that forked processes share. And it comes after 10,000 new objects, not after
# every 700: a page makes some thousand, nearly all of which die by themselves.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 20, 50)
