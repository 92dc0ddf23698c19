from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0007_life"),
    ]

    operations = [
        migrations.AddField(
            model_name="device",
            name="definitions_code",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="device",
            name="definitions_refused",
            field=models.PositiveIntegerField(default=0),
        ),
    ]
