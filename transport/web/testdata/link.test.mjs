import assert from "node:assert/strict";
import { test, mock } from "node:test";
import { Link } from "../assets/link.js";
import { language, languages } from "../assets/words.js";

// peer is the browser's WebSocket and the server behind it.
class Peer {
  static all = [];
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
    this.onmessage({ data: JSON.stringify(frames.length === 1 ? frames[0] : frames) });
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
  drop(code) {
    this.readyState = 3;
    this.onclose({ code });
  }
}

const snapshot = { event: "snapshot", data: { systemId: "s", position: "5-0", seq: 5, devices: [], equipment: [], assignments: [], connections: [] } };
const update = (seq) => ({ event: "device-update", systemId: "s", seq, position: `${seq}-0`, time: "2026-11-23T18:00:00Z", data: { deviceId: "d1", relayOn: true } });

function setup() {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  Peer.all = [];
  const seen = [];
  const link = new Link({
    url: "ws://x/ws", token: "t", system: "s", Socket: Peer, random: () => 1,
    onStatus: (...status) => seen.push(status.filter((part) => part !== undefined).join(" ")),
    onState: () => seen.push("state"),
    onChange: (_, devices) => seen.push("changed " + devices),
  });
  link.open();
  return { link, seen, peer: () => Peer.all.at(-1) };
}

test("joins with a snapshot, and resumes without one", () => {
  const { link, seen, peer } = setup();
  assert.deepEqual(peer().protocols, ["plugcast.v1", "bearer.t"]);
  peer().accept();
  assert.deepEqual(peer().sent, [{ event: "join-system", id: 1, data: { systemId: "s", snapshot: true } }]);
  peer().say({ event: "joined", id: 1, data: { systemId: "s", position: "5-0", seq: 5 } });
  peer().say(snapshot, update(6), update(7));
  assert.deepEqual(seen, ["connecting", "live", "state", "changed d1", "changed d1"]);
  peer().drop(1006);
  mock.timers.tick(500);
  peer().accept();
  assert.deepEqual(peer().sent[0].data, { systemId: "s", after: "7-0" });
  peer().say({ event: "joined", id: 1, data: { recovered: true } });
  peer().say(update(7), update(8));
  assert.equal(link.state.seq, 8);
  assert.equal(seen.at(-1), "changed d1");
});

test("asks for everything when the log does not have what came since", () => {
  const { peer } = setup();
  peer().accept();
  peer().say(snapshot);
  peer().drop(1012);
  mock.timers.tick(500);
  peer().accept();
  peer().say({ event: "joined", id: 1, data: { recovered: false } });
  mock.timers.tick(1000);
  peer().accept();
  assert.deepEqual(peer().sent[0].data, { systemId: "s", snapshot: true });
});

for (const [name, frame] of [
  ["a hole in the sequence", update(7)],
  ["a heartbeat that is ahead", { event: "heartbeat", data: { rooms: { s: { position: "9-0", seq: 9 } } } }],
]) {
  test(`resumes after ${name}`, () => {
    const { peer } = setup();
    peer().accept();
    peer().say(snapshot);
    peer().say(frame);
    mock.timers.tick(500);
    assert.equal(Peer.all.length, 2);
    peer().accept();
    assert.equal(peer().sent[0].data.after, "5-0");
  });
}

test("goes on over what was left out on purpose", () => {
  const { link, peer } = setup();
  peer().accept();
  peer().say(snapshot, { ...update(9), skipped: { from: 6, to: 8 } });
  assert.equal(link.state.seq, 9);
  assert.equal(Peer.all.length, 1);
});

test("backs off further each time, and begins anew after a good connection", () => {
  const { peer, seen } = setup();
  for (const pause of [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]) {
    const before = Peer.all.length;
    peer().drop(1006);
    mock.timers.tick(pause - 1);
    assert.equal(Peer.all.length, before);
    mock.timers.tick(1);
    assert.equal(Peer.all.length, before + 1);
  }
  assert.ok(seen.includes("waiting 16"));
  peer().accept();
  peer().say(snapshot);
  mock.timers.tick(10_000);
  peer().drop(1006);
  const before = Peer.all.length;
  mock.timers.tick(500);
  assert.equal(Peer.all.length, before + 1);
});

test("gives a silent socket up", () => {
  const { peer } = setup();
  peer().accept();
  peer().say(snapshot);
  mock.timers.tick(44_000);
  peer().say({ event: "heartbeat", data: { rooms: { s: { seq: 5 } } } });
  mock.timers.tick(44_000);
  assert.equal(Peer.all.length, 1);
  mock.timers.tick(1_000);
  mock.timers.tick(500);
  assert.equal(Peer.all.length, 2);
});

for (const [code, reason] of [[4401, "unauthorized"], [4403, "forbidden"], [4409, "thrown-out"], [4400, "protocol"], [1009, "protocol"]]) {
  test(`does not return after ${code}`, () => {
    const { link, peer, seen } = setup();
    peer().accept();
    peer().drop(code);
    mock.timers.tick(120_000);
    link.now();
    assert.equal(Peer.all.length, 1);
    assert.equal(seen.at(-1), reason);
  });
}

test("returns after being thrown out when told so, once", () => {
  const { peer, seen } = setup();
  peer().accept();
  peer().say({ event: "forced-disconnect", data: { reason: "restart", reconnect: true } });
  peer().drop(4409);
  mock.timers.tick(500);
  assert.equal(Peer.all.length, 2);
  peer().accept();
  peer().drop(4409);
  mock.timers.tick(120_000);
  assert.equal(Peer.all.length, 2);
  assert.equal(seen.at(-1), "thrown-out");
});

test("a refused join ends it; the pause can be skipped", () => {
  const first = setup();
  first.peer().drop(1006);
  first.link.now();
  assert.equal(Peer.all.length, 2);
  first.link.now();
  assert.equal(Peer.all.length, 2);
  first.peer().accept();
  first.peer().say({ event: "error", id: 1, data: { code: "forbidden" } });
  assert.equal(first.seen.at(-1), "forbidden");
  mock.timers.tick(120_000);
  assert.equal(Peer.all.length, 2);
});

test("every language says everything", () => {
  const keys = Object.keys(languages.en).sort();
  for (const texts of Object.values(languages)) assert.deepEqual(Object.keys(texts).sort(), keys);
  assert.equal(language(["fr-CA", "es-AR", "en"]), "es");
  assert.equal(language(["fr"]), "en");
});
