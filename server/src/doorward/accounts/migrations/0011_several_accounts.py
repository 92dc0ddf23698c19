from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models


def carry_over(apps: Any, _schema_editor: Any) -> None:
    """Keep which account each waiting deletion and copy is about."""
    doomed = apps.get_model("accounts", "DoomedAccount")
    for deletion in apps.get_model("accounts", "Deletion").objects.exclude(account_id=None):
        doomed.objects.create(deletion=deletion, account_id=deletion.account_id)
    for export in apps.get_model("accounts", "Export").objects.exclude(account=None):
        export.accounts.add(export.account_id)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0010_privacy")]
    operations = [
        migrations.CreateModel(
            name="DoomedAccount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("account_id", models.UUIDField(unique=True)),
                (
                    "deletion",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="doomed",
                        to="accounts.deletion",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="export",
            name="accounts",
            field=models.ManyToManyField(related_name="+", to="accounts.account"),
        ),
        migrations.RunPython(carry_over, migrations.RunPython.noop),
        migrations.RemoveField(model_name="deletion", name="account_id"),
        migrations.RemoveField(model_name="export", name="account"),
    ]
