from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("devices", "0006_settings"),
    ]

    operations = [
        migrations.CreateModel(
            name="Twin",
            fields=[
                (
                    "device",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="twin",
                        serialize=False,
                        to="devices.device",
                    ),
                ),
                ("by_former_key", models.BooleanField(default=False)),
                ("boot_id", models.UUIDField(null=True)),
                ("seq", models.PositiveBigIntegerField(default=0)),
                ("hostname", models.CharField(blank=True, max_length=200)),
                ("os_name", models.CharField(blank=True, max_length=64)),
                ("address", models.CharField(blank=True, max_length=45)),
                ("first_seen", models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name="device",
            name="machine",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="device",
            name="removed_why",
            field=models.CharField(
                blank=True,
                choices=[
                    ("removed", "It was removed on the account’s pages."),
                    ("left", "It left by its own command."),
                    ("member-left", "Whose device it is has left the account."),
                    ("account", "The account was deleted."),
                    ("replaced", "Another computer has taken its place in the account."),
                    ("copied", "Two computers used this key, and the other one was kept."),
                    (
                        "reinstalled",
                        "The agent was installed anew on this computer or a copy of it.",
                    ),
                ],
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="device",
            name="replaced_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="devices.device",
            ),
        ),
        migrations.AddField(
            model_name="device",
            name="settling_since",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="enrollmentcode",
            name="replaces",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="devices.device",
            ),
        ),
        migrations.AddField(
            model_name="gonedevice",
            name="device",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="devices.device",
            ),
        ),
        migrations.AddField(
            model_name="gonedevice",
            name="why",
            field=models.CharField(
                choices=[
                    ("removed", "It was removed on the account’s pages."),
                    ("left", "It left by its own command."),
                    ("member-left", "Whose device it is has left the account."),
                    ("account", "The account was deleted."),
                    ("replaced", "Another computer has taken its place in the account."),
                    ("copied", "Two computers used this key, and the other one was kept."),
                    (
                        "reinstalled",
                        "The agent was installed anew on this computer or a copy of it.",
                    ),
                ],
                default="account",
                max_length=12,
            ),
        ),
    ]
