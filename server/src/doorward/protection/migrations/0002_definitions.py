from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("protection", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="DefinitionSource",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("content", models.UUIDField()),
                ("imported_at", models.DateTimeField()),
                ("imported_by", models.CharField(blank=True, max_length=100)),
                ("origin", models.CharField(max_length=1000)),
                ("suspicious", models.BooleanField(default=False)),
                ("rules", models.PositiveIntegerField(default=0)),
                ("hashes", models.PositiveIntegerField(default=0)),
                ("refused", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="DefinitionSet",
            fields=[
                ("number", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("made_at", models.DateTimeField()),
                ("made_by", models.CharField(blank=True, max_length=100)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("preparing", "Being signed"),
                            ("early", "With some devices first"),
                            ("all", "For every device"),
                            ("paused", "Held by an operator"),
                            ("stopped", "Stopped: devices refused it"),
                            ("withdrawn", "Taken back"),
                        ],
                        default="preparing",
                        max_length=10,
                    ),
                ),
                ("state_at", models.DateTimeField()),
                ("below", models.PositiveBigIntegerField(default=0)),
                ("rules", models.PositiveIntegerField(default=0)),
                ("hashes", models.PositiveIntegerField(default=0)),
                ("sources", models.JSONField(default=list)),
                ("why", models.CharField(blank=True, max_length=200)),
                ("like", models.PositiveIntegerField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ["early", "all"])),
                        fields=["state"],
                        name="sets_for_devices",
                    )
                ],
            },
        ),
    ]
