from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("devices", "0005_commands")]
    operations = [
        migrations.AddField(
            model_name="device",
            name="settings_failed_version",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="device",
            name="wanted_version",
            field=models.PositiveIntegerField(default=0),
        ),
    ]
