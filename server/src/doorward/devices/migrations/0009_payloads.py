from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0008_definitions"),
    ]

    operations = [
        migrations.AddField(
            model_name="device",
            name="watched_until",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.CreateModel(
            name="Payload",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("kind", models.CharField(max_length=12)),
                ("body", models.BinaryField()),
                ("length", models.PositiveIntegerField()),
                ("was_packed", models.BooleanField(default=False)),
                ("at", models.DateTimeField()),
                (
                    "device",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="payloads",
                        to="devices.device",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("device", "kind"), name="one_payload_of_a_kind")
                ],
            },
        ),
    ]
