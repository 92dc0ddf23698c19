from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notices", "0001_initial")]
    operations = [migrations.AddField("mail", "forget", models.BooleanField(default=False))]
