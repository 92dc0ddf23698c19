/* Passkeys, by allauth's script, without anything inline; recovery codes can be printed. */

"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const show = (selector) => {
    for (const part of document.querySelectorAll(selector)) part.hidden = false;
  };

  document.addEventListener("allauth.error", (event) => {
    // Told in words on the page, not in the console.
    event.preventDefault();
    show("[data-passkey-failed]");
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-print]")) window.print();
  });

  const forms = document.querySelectorAll("form[data-passkey]");
  if (!forms.length) return;
  if (!window.PublicKeyCredential) {
    show("[data-no-passkeys]");
    return;
  }
  show("[data-needs-passkeys]");
  for (const form of forms) {
    const kind = form.dataset.passkey;
    const ids = {
      [kind]: form.querySelector("[data-passkey-button]").id,
      credential: form.elements.credential.id,
    };
    if (form.elements.passwordless) ids.passwordless = form.elements.passwordless.id;
    const data = form.dataset.options ? JSON.parse(form.dataset.options) : undefined;
    // Enter in the name asks for the passkey, as the button does; the form is sent once that is there.
    form.addEventListener("submit", (event) => {
      if (form.elements.credential.value) return;
      event.preventDefault();
      form.querySelector("[data-passkey-button]").click();
    });
    window.allauth.webauthn.forms[`${kind}Form`]({ ids, data });
  }
});
