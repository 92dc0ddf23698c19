// Shows a page of ours when there is no connection. Keeps these few public files and nothing else.
"use strict";
const KEPT = {{ kept|safe }};
const NAME = "doorward-offline-1";
self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(KEPT)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter((name) => name !== NAME).map((name) => caches.delete(name)))));
});
self.addEventListener("fetch", (event) => {
  if (event.request.mode !== "navigate") return;
  const offline = () => caches.match("/offline/");
  // Going back to what answered a form, which is kept nowhere: the page is asked for anew, with its empty form.
  const anew = () => fetch(event.request.url, { cache: "no-store", credentials: "same-origin", headers: { Accept: "text/html" }, redirect: "manual" }).catch(offline);
  event.respondWith(fetch(event.request).catch(() => event.request.isHistoryNavigation ? anew() : offline()));
});
