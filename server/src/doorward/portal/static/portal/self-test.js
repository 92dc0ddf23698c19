/* The self-test: looks at this browser and says in words what it found. */

"use strict";

(() => {
  const SECOND = 1000;
  const place = document.querySelector("[data-self-test]");
  if (!place) return;

  const say = (name, state, detail = "") => {
    const line = place.querySelector(`[data-check="${name}"]`);
    for (const words of line.querySelectorAll("[data-state]")) words.hidden = words.dataset.state !== state;
    const slot = line.querySelector("[data-detail]");
    if (slot) slot.textContent = detail;
    line.dataset.found = state;
  };

  const ask = async (address, options = {}) => {
    const stop = new AbortController();
    const clock = setTimeout(() => stop.abort(), 10 * SECOND);
    try {
      return await fetch(address, { cache: "no-store", signal: stop.signal, ...options });
    } finally {
      clearTimeout(clock);
    }
  };

  const cookiesAndClock = async () => {
    const sent = Date.now();
    try {
      const told = await (await ask(place.dataset.answer)).json();
      const back = Date.now();
      say("connection", "good", `${back - sent} ms`);
      say("cookies", told.cookie ? "good" : "bad");
      // The answer was written half-way between asking and hearing it.
      const off = Math.round(((sent + back) / 2 - told.now) / SECOND);
      say("clock", Math.abs(off) < 30 ? "good" : "bad", `${Math.abs(off)} s`);
    } catch {
      say("connection", "bad");
      say("cookies", "unknown");
      say("clock", "unknown");
    }
  };

  const peoplesDoor = async () => {
    try {
      say("door", (await ask("/health/ready")).ok ? "good" : "bad");
    } catch {
      say("door", "bad");
    }
  };

  const devicesDoor = async () => {
    try {
      await ask(place.dataset.deviceDoor, { mode: "no-cors", credentials: "omit" });
      say("devices", "good");
    } catch {
      say("devices", "bad");
    }
  };

  const worker = async () => {
    if (!("serviceWorker" in navigator) || !isSecureContext) {
      say("worker", "none");
      return;
    }
    const found = await navigator.serviceWorker.getRegistrations();
    const waiting = found.some((each) => each.waiting);
    say("worker", waiting ? "old" : found.length ? "good" : "none");
  };

  const passkeys = () => say("passkeys", window.PublicKeyCredential ? "good" : "none");

  const run = async () => {
    place.hidden = false;
    say("script", "good");
    passkeys();
    await Promise.allSettled([cookiesAndClock(), peoplesDoor(), devicesDoor(), worker()]);
    const bad = place.querySelectorAll('[data-found="bad"]').length;
    for (const line of document.querySelectorAll("[data-result]")) {
      line.hidden = line.dataset.result !== (bad ? "bad" : "good");
    }
  };

  document.addEventListener("DOMContentLoaded", run);
})();
