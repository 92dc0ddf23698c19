from __future__ import annotations

from uuid import UUID

import django.db.models.deletion
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models


def own_id() -> models.UUIDField[UUID, UUID]:
    """The primary key of each of these tables."""
    return models.UUIDField(
        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
    )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0009_address_and_number")]
    operations = [
        migrations.CreateModel(
            name="Deletion",
            fields=[
                ("id", own_id()),
                ("user_id", models.UUIDField(unique=True)),
                ("account_id", models.UUIDField(null=True, unique=True)),
                ("asked_at", models.DateTimeField()),
                ("due_at", models.DateTimeField(db_index=True)),
                ("closed_at", models.DateTimeField(null=True)),
                ("lease_until", models.DateTimeField(null=True)),
                ("counts", models.JSONField(default=dict)),
            ],
        ),
        migrations.CreateModel(
            name="Receipt",
            fields=[
                ("id", own_id()),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("text", models.TextField()),
                ("sha256", models.CharField(max_length=64)),
                ("made_at", models.DateTimeField(db_index=True)),
                ("mails", models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name="Export",
            fields=[
                ("id", own_id()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("packing", "Being packed"),
                            ("ready", "Ready"),
                            ("failed", "Failed"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("asked_at", models.DateTimeField()),
                ("lease_until", models.DateTimeField(null=True)),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("tables_done", models.PositiveSmallIntegerField(default=0)),
                ("tables", models.PositiveSmallIntegerField(default=0)),
                ("rows", models.BigIntegerField(default=0)),
                ("size", models.BigIntegerField(default=0)),
                ("sha256", models.CharField(blank=True, max_length=64)),
                ("ready_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(db_index=True, null=True)),
                ("fetched_at", models.DateTimeField(null=True)),
                (
                    "account",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.account",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="exports",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state__in", ["waiting", "packing"])),
                        fields=("user",),
                        name="one_export_under_way",
                    )
                ],
            },
        ),
    ]
