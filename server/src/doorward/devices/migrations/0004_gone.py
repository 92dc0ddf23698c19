from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("devices", "0003_whose")]
    operations = [
        migrations.CreateModel(
            name="GoneDevice",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("public_key", models.CharField(max_length=43)),
                ("thumbprint", models.CharField(db_index=True, max_length=43)),
                ("epoch", models.PositiveIntegerField()),
                ("gone_at", models.DateTimeField(db_index=True)),
            ],
        ),
    ]
