// The client and what is around it: the page, its storage, its network.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../src/index.js";
import { Peer, live, settled, setup, storage, tick, timers, update } from "./peer.mjs";

test("after a reload, delivers what was missed behind the new state, and nothing twice", () => {
  const kept = storage();
  const before = live({ storage: kept });
  Peer.last.say(update(6), update(7));
  assert.deepEqual([...kept.kept], [["plugcast ws://x/ws s ", "7-0"]]);
  const { client, heard } = setup({ storage: kept }); // the page is gone without a word
  Peer.last.accept();
  Peer.last.joined(10);
  assert.deepEqual([client.state().seq, Peer.last.joins], [10, [{ systemId: "s", snapshot: true }, { systemId: "s", after: "7-0" }]]);
  Peer.last.say(update(11)); // of the first join; it comes again
  Peer.last.joined(7);
  Peer.last.say([8, 9, 10, 11].map((seq) => update(seq)));
  assert.deepEqual([before.heard, heard, client.state().seq], [[6, 7], [8, 9, 10, 11], 11]);
  client.close();
  assert.deepEqual([...kept.kept], []);
});

test("after a reload, the new state may be older than what was delivered", () => {
  const kept = storage(new Map([["plugcast ws://x/ws s ", "7-0"]]));
  const { heard, client } = setup({ storage: kept });
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.say([6, 7, 8].map((seq) => update(seq)));
  assert.deepEqual([heard, client.state().seq, Peer.last.joins.length], [[8], 8, 1]);
});

test("who hears no events asks for none; a storage that is spoilt or full does no harm", () => {
  const kept = storage(new Map([["plugcast ws://x/ws s ", "7-0"]]));
  setup({ storage: kept, hears: false });
  Peer.last.accept();
  Peer.last.joined(10);
  assert.equal(Peer.last.joins.length, 1);
  assert.equal(kept.kept.get("plugcast ws://x/ws s "), "10-0");
  const spoilt = setup({ storage: storage(new Map([["plugcast ws://x/ws s ", "7-99999999999999999999"]])) }); // more than positions have
  Peer.last.accept();
  Peer.last.joined(10);
  Peer.last.say({ event: "error", id: 2, data: { code: "invalid-position" } });
  Peer.last.joined(10);
  Peer.last.say(update(11));
  assert.deepEqual(spoilt.heard, [11]);
  const broken = () => { throw new Error("full"); };
  const { client, heard } = live({ storage: { getItem: broken, setItem: broken, removeItem: broken } });
  Peer.last.say(update(6));
  client.close();
  assert.deepEqual(heard, [6]);
});

test("nothing is left of a client that is closed", () => {
  const counts = { added: 0, removed: 0 };
  const target = () => ({
    addEventListener(name, handler, { signal }) {
      counts.added++;
      signal.addEventListener("abort", () => counts.removed++);
    },
  });
  Object.assign(globalThis, { window: target(), document: target() });
  const { client } = live();
  Peer.last.drop(1006);
  client.close();
  const before = Peer.all.length;
  tick(1_000_000);
  assert.deepEqual([Peer.all.length, counts.added > 3, counts.removed], [before, true, counts.added]);
  delete globalThis.window;
  delete globalThis.document;
});

test("URLs of the page, of http and of other hosts", () => {
  for (const [page, url, want] of [
    ["https://a.example/x/y", undefined, "wss://a.example/ws"], ["http://a.example/", "/live/ws", "ws://a.example/live/ws"],
    ["http://a.example/", "https://b.example/ws#x", "wss://b.example/ws"], [undefined, "ws://c.example/ws", "ws://c.example/ws"],
  ]) {
    globalThis.location = page && { href: page };
    const client = new Client({ url, token: "t", systemId: "s", storage: null, WebSocket: Peer });
    client.connect();
    assert.equal(Peer.last.url, want);
    client.close();
  }
  delete globalThis.location;
});

test("a place in the storage that is none is not taken for one", () => {
  const key = "plugcast ws://x/ws s ";
  for (const rubbish of ["rubbish", "", "1-", "5", "[object Object]", "99e9-0"]) {
    const kept = storage(new Map([[key, rubbish]]));
    const { heard, client } = setup({ storage: kept });
    Peer.last.accept();
    Peer.last.joined(10);
    Peer.last.say(update(11));
    assert.deepEqual([heard, kept.kept.get(key)], [[11], "11-0"], rubbish);
    client.close();
  }
});

test("without a WebSocket it ends and says so", async () => {
  const { WebSocket } = globalThis;
  delete globalThis.WebSocket;
  for (const token of ["t", async () => "t"]) {
    const { client } = setup({ WebSocket: undefined, token });
    await settled();
    assert.equal(client.status, "protocol");
    assert.match(client.info.reason, /WebSocket/);
    assert.equal(timers.size, 0);
  }
  if (WebSocket) globalThis.WebSocket = WebSocket;
});

test("a WebSocket whose errors have to be listened to, as that of Node's ws, harms nobody", () => {
  const { client } = setup();
  const [first] = Peer.all;
  first.onerror({});
  first.drop(1006);
  first.onerror({}); // of a socket that was given up
  client.close();
});

test("a browser that loses the network asks whether the server is there", () => {
  const listeners = {};
  Object.assign(globalThis, { window: { addEventListener: (name, handler) => (listeners[name] = handler) }, document: { addEventListener() {} } });
  const { client } = live();
  listeners.offline();
  assert.equal(Peer.last.sent.at(-1).event, "ping");
  tick(8_000);
  assert.equal(client.status, "waiting");
  client.close();
  delete globalThis.window;
  delete globalThis.document;
});

test("where there is no page there is nothing to listen to", () => {
  globalThis.window = globalThis; // as React Native has it
  const { client } = live();
  assert.equal(client.status, "live");
  client.close();
  delete globalThis.window;
});

test("a page that is looked at again does not shorten the pause after a flood", () => {
  const listeners = {};
  Object.assign(globalThis, {
    window: { addEventListener: (name, handler) => (listeners[name] = handler) },
    document: { addEventListener: (name, handler) => (listeners[name] = handler) },
  });
  const { client } = live();
  Peer.last.drop(4429);
  tick(1000);
  listeners.visibilitychange();
  listeners.pagehide();
  listeners.pageshow();
  assert.equal(Peer.all.length, 1);
  tick(58_999);
  assert.equal(Peer.all.length, 1);
  tick(1);
  assert.equal(Peer.all.length, 2);
  Peer.last.drop(1006);
  listeners.visibilitychange();
  assert.equal(Peer.all.length, 3);
  client.close();
  delete globalThis.window;
  delete globalThis.document;
});
