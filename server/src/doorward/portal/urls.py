"""The addresses of the pages for people."""

from __future__ import annotations

from django.urls import include, path

from doorward.portal import (
    account,
    devices,
    helping,
    home,
    mailbox,
    protection,
    reports,
    security,
    sessions,
    site_files,
    subscription,
    tokens,
    unlock,
)

urlpatterns = [
    path("", home.home, name="home"),
    path("devices/", devices.list_devices, name="devices"),
    path("devices/add/", devices.add, name="device_add"),
    path("devices/add/<uuid:code_id>/", devices.watch_code, name="device_code"),
    path("devices/<uuid:device_id>/", devices.show, name="device"),
    path("devices/<uuid:device_id>/rename/", devices.rename, name="device_rename"),
    path("devices/<uuid:device_id>/remove/", devices.remove, name="device_remove"),
    path("devices/<uuid:device_id>/settle/", devices.settle_copy, name="device_settle"),
    path("protection/", protection.overview, name="protection"),
    path("reports/", reports.scans, name="scans"),
    path("reports/scans/<uuid:uid>/", reports.scan, name="scan"),
    path("reports/threats/", reports.threats, name="threats"),
    path("reports/threats/<uuid:uid>/", reports.threat, name="threat"),
    path("subscription/", subscription.overview, name="subscription"),
    path("help/", helping.contents, name="help"),
    path("help/<slug:slug>/", helping.article, name="help_article"),
    path("account/", account.you, name="account"),
    path("account/theme/", account.choose_theme, name="theme_choice"),
    path("account/tokens/", tokens.overview, name="tokens"),
    path("account/tokens/<uuid:token_id>/revoke/", tokens.revoke, name="token_revoke"),
    path("account/sessions/", sessions.overview, name="usersessions_list"),
    path("account/sessions/<int:session_id>/end/", sessions.end, name="session_end"),
    path("account/security/", security.overview, name="security"),
    path("account/security/email/", security.switch_email, name="email_code_switch"),
    path("account/security/browsers/forget/", security.forget_browsers, name="browsers_forget"),
    path(
        "account/security/browsers/<uuid:browser_id>/forget/",
        security.forget_browser,
        name="browser_forget",
    ),
    path("account/security/by-mail/", security.mail_me_a_code, name="second_step_by_mail"),
    path("account/security/another-way/", security.another_way, name="second_step_another_way"),
    path("login/code/confirm/", security.mailed_code, name="account_confirm_login_code"),
    path("account/security/authenticate/", security.second_step, name="mfa_authenticate"),
    # Where allauth leads after a change of a passkey.
    path("account/security/webauthn/", security.overview, name="mfa_list_webauthn"),
    path("account/security/", include("allauth.mfa.urls")),
    path("demo/mailbox/", mailbox.mailbox, name="demo_mailbox"),
    path("manifest.webmanifest", site_files.manifest, name="manifest"),
    path("service-worker.js", site_files.worker, name="service_worker"),
    path("offline/", site_files.offline, name="offline"),
    path("theme.css", site_files.theme, name="theme_css"),
    path("login/link/", unlock.ask, name="login_link"),
    path("login/link/<str:secret>/", unlock.redeem, name="login_link_redeem"),
    path("", include("allauth.account.urls")),
]
