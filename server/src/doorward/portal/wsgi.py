"""The portal as granian loads it."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doorward.settings")

application = get_wsgi_application()

# What was loaded stays: the collector need not walk through half a million objects again and again,
# nor copy the pages that forked processes share. And it comes after 10,000 new objects, not after
# every 700: a page makes some thousand, nearly all of which die by themselves.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 20, 50)
