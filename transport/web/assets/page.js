// The page: what it shows of a state, and how.

import { Client } from "./client/index.js";
import { language, speaker } from "./words.js";

const lang = language(navigator.languages || [navigator.language]);
const say = speaker(lang);
const find = (id) => document.getElementById(id);
const numbers = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
const ago = new Intl.RelativeTimeFormat(lang, { numeric: "auto" });
const cards = new Map(); // by device
const drawn = new Map(); // what each card shows
let client = null;
let first = true; // no card was drawn of this state yet: nothing of it is news
let painting = false;

// What is kept for the tab. A browser may forbid that: then it is kept for the page.
const kept = new Map();

function keep(key, value) {
  kept.set(key, value);
  try {
    sessionStorage.setItem(key, value);
  } catch {}
}

function recall(key) {
  try {
    return kept.get(key) ?? sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

document.documentElement.lang = lang;
translate(document);
translate(find("plug").content);

function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
}

// credentials takes the token out of the address, so that it is neither copied
// with it nor kept in the browser's history; a reload finds it in this tab.
function credentials() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const system = fragment.get("system") || recall("system");
  const token = fragment.get("token") || recall("token:" + system);
  if (fragment.has("token")) history.replaceState(null, "", "#" + new URLSearchParams({ system: system || "" }));
  return { system, token };
}

function start() {
  const { system, token } = credentials();
  client?.close();
  client = null;
  find("system").textContent = system || "";
  find("login").hidden = Boolean(system && token);
  find("live").hidden = true;
  find("notice").hidden = true;
  if (!system || !token) {
    find("status").textContent = "";
    find("login").elements.system.value = system || "";
    return;
  }
  keep("system", system);
  keep("token:" + system, token);
  document.title = system + " · plugcast";
  const next = new Client({ url: new URL("ws", location.href).href, token, systemId: system });
  client = next;
  next.on("status", showStatus);
  next.on("state", showState);
  next.subscribe(draw);
  next.connect();
}

const endings = ["unauthorized", "forbidden", "thrown-out", "protocol"];

function showStatus({ status, seconds }) {
  if (status === "idle") return; // another one takes its place
  const over = endings.includes(status);
  const pill = find("status");
  pill.dataset.state = over ? "ended" : status;
  pill.textContent = over ? say("offline") : say(status, { s: seconds });
  find("notice").hidden = !over;
  if (over) find("notice").textContent = say(status);
  if (status === "unauthorized") {
    const [system] = client.systemIds;
    keep("token:" + system, "");
    find("login").elements.system.value = system;
    find("login").hidden = false;
  }
}

function showState() {
  find("live").hidden = false;
  find("plugs").replaceChildren();
  cards.clear();
  drawn.clear();
  first = true;
  draw();
}

// draw has the cards of devices that changed drawn in the next frame: a burst of
// events costs one.
function draw() {
  if (!painting) requestAnimationFrame(paint);
  painting = true;
}

function paint() {
  painting = false;
  if (!client?.isLoaded()) return;
  for (const id of client.deviceIds) {
    const device = client.device(id);
    if (drawn.get(id) === device) continue;
    drawn.set(id, device);
    fill(cards.get(id) || add(id), device, !first);
  }
  first = false;
  find("empty").hidden = drawn.size > 0;
  total();
  sift();
}

function add(id) {
  const card = find("plug").content.firstElementChild.cloneNode(true);
  cards.set(id, card);
  const after = [...cards.keys()].filter((other) => other > id).sort()[0];
  find("plugs").insertBefore(card, after ? cards.get(after) : null);
  return card;
}

function fill(card, device, changed) {
  const part = (selector) => card.querySelector(selector);
  const relay = relayOf(device);
  const { equipment } = device;
  const unreachable = device.online === false;
  if (changed && card.dataset.relay && card.dataset.relay !== relay) announce(device, relay);
  card.dataset.relay = relay;
  card.classList.toggle("dim", unreachable || device.stale);
  part("h2").textContent = device.name || device.deviceId;
  part("h2").title = device.deviceId;
  part(".relay").textContent = say(relay);
  part(".equipment").textContent = equipment ? equipment.name || equipment.equipmentId : say("none");
  part(".equipment").classList.toggle("none", !equipment);
  part(".power").textContent = quantity(device.powerW, "W");
  part(".energy").textContent = quantity(device.energyWh == null ? null : device.energyWh / 1000, "kWh");
  part(".reach").textContent = reachOf(device);
  part("time").dateTime = device.updatedAt;
  part("time").title = new Date(device.updatedAt).toLocaleString(lang);
  part("time").textContent = since(device.updatedAt);
  part(".faults").hidden = !device.errors?.length;
  part(".faults").textContent = device.errors?.length ? say("faults") + ": " + device.errors.join(", ") : "";
  if (changed) {
    card.classList.remove("changed");
    void card.offsetWidth; // begins the animation anew
    card.classList.add("changed");
  }
}

// announce tells who cannot see the page that a plug was switched.
function announce(device, relay) {
  const text = { on: "spokenOn", off: "spokenOff", unknown: "spokenUnknown" }[relay];
  find("spoken").textContent = say(text, { name: device.name || device.deviceId });
}

function relayOf(device) {
  if (device.relayOn == null) return "unknown";
  return device.relayOn ? "on" : "off";
}

function reachOf(device) {
  if (device.stale) return say("stale");
  if (device.online == null) return say("notKnown");
  return say(device.online ? "online" : "offline");
}

function quantity(value, unit) {
  return value == null ? say("notKnown") : numbers.format(value) + " " + unit;
}

function since(time) {
  const seconds = Math.min(0, (Date.parse(time) - Date.now()) / 1000);
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (-seconds >= length) return ago.format(Math.round(seconds / length), unit);
  }
  return ago.format(Math.round(seconds), "second");
}

function total() {
  const count = { on: 0, off: 0, unknown: 0, offline: 0 };
  let power = 0;
  for (const device of drawn.values()) {
    count[relayOf(device)]++;
    if (device.online === false) count.offline++;
    else power += device.powerW || 0;
  }
  for (const [name, n] of Object.entries(count)) find("total-" + name).textContent = numbers.format(n);
  find("total-power").textContent = quantity(power, "W");
}

// sift hides the cards that do not match what is looked for.
function sift() {
  const wanted = find("filter").querySelector("input").value.trim().toLowerCase();
  for (const [id, card] of cards) {
    card.hidden = !(id + " " + card.querySelector(".head").textContent + " " + card.querySelector(".equipment").textContent)
      .toLowerCase().includes(wanted);
  }
}

find("filter").addEventListener("input", sift);
find("login").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const { system, token } = find("login").elements;
  keep("system", system.value);
  keep("token:" + system.value, token.value.trim());
  token.value = "";
  if (location.hash === "#system=" + system.value) start();
  else location.hash = "system=" + system.value;
});
addEventListener("hashchange", start);
setInterval(() => {
  for (const time of find("plugs").querySelectorAll("time")) time.textContent = since(time.dateTime);
}, 10_000);

start();
