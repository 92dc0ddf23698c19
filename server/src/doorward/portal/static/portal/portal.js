/* What the pages can do beyond their HTML. Everything here is an addition: each page works without it. */

"use strict";

(() => {
  const say = (words) => {
    const place = document.getElementById("toasts");
    if (!place) return;
    const template = document.getElementById("toast");
    const toast = template.content.firstElementChild.cloneNode(true);
    toast.querySelector("[data-words]").textContent = words;
    place.append(toast);
    setTimeout(() => toast.remove(), 6000);
  };

  // --- Copying, where the browser lets us; the text can always be selected by hand.
  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      if (!document.execCommand("copy")) return;
    }
    const label = button.querySelector("[data-label]") ?? button;
    const before = label.textContent;
    label.textContent = button.dataset.copied;
    say(button.dataset.copied);
    setTimeout(() => { label.textContent = before; }, 2000);
  };

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-copy], [data-dialog], [data-close], [data-reveal]");
    if (!target) return;
    if (target.dataset.copy) {
      copy(target);
    } else if (target.dataset.dialog) {
      // The link leads to a page that asks the same question; the dialog only saves the way there.
      const dialog = document.getElementById(target.dataset.dialog);
      if (!dialog?.showModal) return;
      event.preventDefault();
      dialog.showModal();
    } else if (target.dataset.close !== undefined) {
      event.preventDefault();
      const box = target.closest("dialog, .toast, .note");
      if (box instanceof HTMLDialogElement) box.close(); else box?.remove();
    } else if (target.dataset.reveal) {
      const field = document.getElementById(target.dataset.reveal);
      const shown = field.type === "text";
      field.type = shown ? "password" : "text";
      target.setAttribute("aria-pressed", String(!shown));
      field.focus();
    }
  });

  // --- A form is sent once: a second click while the answer is on its way would be a second try.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    // Where the answer was a file or never came, the page is still there.
    setTimeout(() => { delete form.dataset.sent; }, 8000);
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // --- Asked again who one is, one comes back to the form, which nothing was done of: what was typed there is typed
  //     again. It stays in this tab, for as long as the question is on the screen, and is only typed for the person who
  //     typed it, in the form they typed it in; secrets are left out.
  const TYPED = "typed";
  const isKept = (field) => field.name && !["hidden", "password", "file", "submit", "button"].includes(field.type)
    && field.autocomplete !== "one-time-code";
  const isChosen = (field) => ["checkbox", "radio"].includes(field.type);
  const stateOf = (field) => (isChosen(field) ? field.checked : field.value);
  const fieldsOf = (form) => [...form.elements].filter(isKept);
  // Of the account, too: what is meant for one is not typed into another's form.
  const whose = (form) => [
    document.body.dataset.person, location.pathname, form.getAttribute("action"), form.elements.account?.value,
    ...fieldsOf(form).map((field) => field.name),
  ].join("\n");
  const keep = (form) => {
    const states = fieldsOf(form).map(stateOf);
    sessionStorage.setItem(TYPED, JSON.stringify({ whose: whose(form), states, asked: false }));
  };
  const typeAgain = () => {
    const kept = JSON.parse(sessionStorage.getItem(TYPED) ?? "null");
    if (!kept) return;
    if (document.querySelector("[data-asks-again]")) {
      sessionStorage.setItem(TYPED, JSON.stringify({ ...kept, asked: true }));
      return;
    }
    sessionStorage.removeItem(TYPED);
    const form = kept.asked && [...document.forms].find((one) => whose(one) === kept.whose);
    if (!form || !document.body.dataset.person) return;
    const fields = fieldsOf(form);
    for (const [number, field] of fields.entries()) {
      if (isChosen(field)) field.checked = kept.states[number]; else field.value = kept.states[number];
    }
    fields.find((field) => field.type !== "radio" || field.checked)?.focus();
  };
  const orNot = (act) => {
    // Where nothing may be kept, it is typed once more by hand.
    try { act(); } catch { /* as said */ }
  };
  orNot(typeAgain);
  document.addEventListener("submit", ({ target, defaultPrevented }) => {
    if (!defaultPrevented && target.method === "post" && document.body.matches(".app")) orNot(() => keep(target));
  });

  // --- A form that came back wrong begins where it is wrong, also where that lies below the screen.
  const beginWhereItIsWrong = () => {
    if (document.querySelector("[autofocus]")) return;
    const said = document.querySelector("main .field-error, main .note-danger[role=alert]");
    if (!said) return;
    const around = said.closest("fieldset, .field") ?? said;
    const field = document.querySelector("main [aria-invalid=true]")
      ?? around.querySelector("input:not([type=hidden]), select, textarea");
    if (!field) said.tabIndex = -1;
    (field ?? said).focus();
    said.scrollIntoView({ block: "center" });
  };
  beginWhereItIsWrong();

  // --- Ages keep walking between two answers of the server.
  const units = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];
  const language = document.documentElement.lang || "en";
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "short" });
  const walk = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
      if (seconds < 60) continue;
      const [unit, length] = units.find(([, size]) => seconds >= size);
      const words = relative.format(-Math.floor(seconds / length), unit).replace(/\./g, "");
      if (time.textContent !== words) time.textContent = words;
    }
  };
  setInterval(walk, 20000);

  // --- The server writes times in the person's zone; tell it which one this browser is in.
  //     Once: a zone the server does not know, or cookies that are off, are no reason to ask on every page.
  const tellZone = async () => {
    const known = document.documentElement.dataset.zone;
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (known === undefined || !zone || zone === known) return;
    try {
      if (sessionStorage.getItem("told-zone") === zone) return;
      sessionStorage.setItem("told-zone", zone);
      const { token } = await (await fetch("/zone/")).json();
      await fetch("/zone/", { method: "POST", headers: { "X-CSRFToken": token }, body: new URLSearchParams({ zone }) });
    } catch {
      // Times stay in the zone they are in.
    }
  };
  tellZone();

  // --- Live parts ask again every few seconds while somebody is looking, and at once on coming back.
  const tick = () => {
    const selecting = !getSelection()?.isCollapsed;
    if (document.visibilityState === "visible" && !selecting) document.body.dispatchEvent(new Event("look-again"));
  };
  setInterval(tick, 3000);
  document.addEventListener("visibilitychange", tick);

  // --- One choice open at a time, for browsers that do not know <details name>.
  document.addEventListener("toggle", (event) => {
    const choice = event.target;
    if (!(choice instanceof HTMLDetailsElement) || !choice.open || !choice.name) return;
    for (const other of document.getElementsByName(choice.name)) {
      if (other !== choice) other.open = false;
    }
  }, true);

  // --- How a new password would be judged, while it is typed.
  const judged = (line) => {
    const field = document.getElementById(line.dataset.strengthOf);
    let waiting = 0;
    let asked = 0;
    const ask = async () => {
      const number = ++asked;
      const email = field.form?.querySelector("[type=email]")?.value ?? "";
      const token = field.form?.querySelector("[name=csrfmiddlewaretoken]")?.value ?? "";
      try {
        const answer = await fetch("/password/judge/", {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-CSRFToken": token },
          body: JSON.stringify({ password: field.value, email }),
        });
        if (!answer.ok || number !== asked) return;
        const told = await answer.json();
        line.dataset.level = told.level;
        line.querySelector("[data-words]").textContent = told.why || told.word;
        line.hidden = false;
        // What was said of the password sent before is not said of this one.
        line.parentElement.querySelector("[data-judged-before]")?.setAttribute("hidden", "");
      } catch {
        line.hidden = true;
      }
    };
    field?.addEventListener("input", () => {
      clearTimeout(waiting);
      if (field.value) waiting = setTimeout(ask, 250); else line.hidden = true;
    });
    // Once the form is on its way, its token may be spent: an answer would be a refusal.
    field?.form?.addEventListener("submit", () => clearTimeout(waiting));
  };
  for (const line of document.querySelectorAll("[data-strength-of]")) judged(line);

  const ready = () => {
    for (const part of document.querySelectorAll("[data-needs-script]")) part.hidden = false;
    for (const note of document.querySelectorAll(".toast[data-stay]")) {
      setTimeout(() => note.remove(), 8000);
    }
  };
  ready();

  // --- A live part that was renewed leaves the reader where they were: same focus, same open details.
  let held = null;
  const mark = (item) => item.querySelector("summary")?.id || item.textContent;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const region = event.detail.target;
    const active = document.activeElement;
    held = {
      focus: region.contains(active) ? active.id || active.getAttribute("href") : null,
      open: [...region.querySelectorAll("details[open]")].map(mark),
    };
  });
  document.addEventListener("htmx:afterSwap", () => {
    ready();
    if (!held) return;
    const { focus, open } = held;
    held = null;
    for (const item of document.querySelectorAll(".live details")) {
      if (open.includes(mark(item))) item.open = true;
    }
    if (!focus) return;
    const same = document.getElementById(focus) ?? document.querySelector(`a[href="${CSS.escape(focus)}"]`);
    same?.focus({ preventScroll: true });
  });
})();

// --- Without a connection a page of ours is shown instead of the browser's.
if ("serviceWorker" in navigator && isSecureContext) {
  navigator.serviceWorker.register("/service-worker.js").catch(() => undefined);
}
