/* Passkeys that fail are told in words; recovery codes can be printed. Beside allauth's own scripts. */

"use strict";

(() => {
  const failed = () => {
    for (const note of document.querySelectorAll("[data-passkey-failed]")) note.hidden = false;
  };
  document.addEventListener("allauth.error", (event) => {
    event.preventDefault();
    failed();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-print]")) window.print();
  });

  if (window.PublicKeyCredential) {
    for (const part of document.querySelectorAll("[data-needs-passkeys]")) part.hidden = false;
  } else {
    for (const note of document.querySelectorAll("[data-no-passkeys]")) note.hidden = false;
  }
})();
