// The browser's WebSocket and the server behind it, as a test plays them.
import { Client } from "../src/index.js";

export class Peer {
  static all = [];
  static get last() { return Peer.all.at(-1); }
  readyState = 0;
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    Peer.all.push(this);
  }
  accept() {
    this.readyState = 1;
    this.onopen();
  }
  say(...frames) {
    this.onmessage?.({ data: JSON.stringify(frames.length === 1 ? frames[0] : frames) });
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }
  drop(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
  // The join that was asked for last is answered: with a snapshot, if it wants one.
  joined(seq, more = {}) {
    const { id, data } = this.sent.findLast((frame) => frame.event === "join-system");
    const answer = { event: "joined", id, data: { systemId: data.systemId, position: `${seq}-0`, seq, recovered: true, ...more } };
    if (data.snapshot) this.say(answer, snapshot(seq, data.systemId));
    else this.say(answer);
  }
  get joins() { return this.sent.filter((frame) => frame.event === "join-system").map((frame) => frame.data); }
}

export const snapshot = (seq, systemId = "s", devices = []) =>
  ({ event: "snapshot", data: { systemId, position: `${seq}-0`, seq, devices, equipment: [], assignments: [], connections: [] } });

export const update = (seq, data = { relayOn: true }, systemId = "s") => ({
  event: "device-update", version: 1, systemId, seq, position: `${seq}-0`, time: "2026-11-23T18:00:00Z", actor: "x", id: `e${seq}`,
  data: { deviceId: "d1", ...data },
});

// A session storage.
export function storage(kept = new Map()) {
  return { kept, getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => void kept.set(k, v), removeItem: (k) => void kept.delete(k) };
}

// A JWT, as far as a client looks into it.
export const jwt = (seconds, more = {}) =>
  `x.${btoa(JSON.stringify({ exp: Date.now() / 1000 + seconds, ...more })).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")}.y`;

export function setup(options = {}) {
  timers.clear();
  now = 0;
  Peer.all = [];
  const seen = [];
  const client = new Client({ url: "ws://x/ws", token: "t", systemId: "s", storage: null, WebSocket: Peer, random: () => 1, ...options });
  client.on("status", ({ status, seconds }) => seen.push(seconds === undefined ? status : `${status} ${seconds}`));
  client.on("state", () => seen.push("state"));
  client.on("reset", () => seen.push("reset"));
  const heard = [];
  const listen = () => client.on("*", (_, event) => heard.push(event.seq));
  if (options.hears !== false) listen();
  if (options.start !== false) client.connect();
  return { client, seen, heard, listen };
}

// The clock of a test, which goes when it is told to. That of node:test has no
// date in Node 18, which Debian 12 has.
let now = 0;
let made = 0;
export const timers = new Map();
Date.now = () => now;
globalThis.setTimeout = (run, ms) => {
  timers.set(++made, { at: now + ms, run });
  return made;
};
globalThis.clearTimeout = (id) => void timers.delete(id);

// Lets time pass, with the timers that end in it.
export function tick(ms) {
  const until = now + ms;
  for (;;) {
    const [next] = [...timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at);
    if (!next) break;
    const [id, { at, run }] = next;
    timers.delete(id);
    now = at;
    run();
  }
  now = until;
}

// Connected, with a snapshot at seq 5.
export function live(options) {
  const all = setup(options);
  Peer.last.accept();
  Peer.last.joined(5);
  return all;
}

// Lets promises go on.
export const settled = () => new Promise((resolve) => setImmediate(resolve));
