// How a client gets its token, and replaces it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Peer, jwt, live, settled, setup, snapshot, storage, tick, update } from "./peer.mjs";

test("a token is replaced before it expires", async () => {
  let n = 0;
  const { client } = setup({ token: async () => jwt(100, { n: n++ }) });
  await settled();
  assert.match(Peer.last.protocols[1], /^bearer\.x\./);
  Peer.last.accept();
  Peer.last.joined(5);
  for (const ms of [25_000, 25_000, 19_000]) { // 30 s before its end, or a third of its time
    tick(ms);
    Peer.last.say({ event: "pong" });
  }
  await settled();
  assert.equal(n, 1);
  tick(2_000);
  await settled();
  const asked = Peer.last.sent.at(-1);
  assert.equal(asked.event, "authenticate");
  Peer.last.say({ event: "authenticated", id: asked.id, data: {} });
  assert.deepEqual([n, client.status, Peer.all.length], [2, "live", 1]);
  Peer.last.drop(1006); // the token in use is good
  tick(1000);
  await settled();
  assert.deepEqual([n, Peer.last.protocols[1]], [2, "bearer." + asked.data.token]);
  client.close();
});

test("the server's clock counts, not the page's", async () => {
  const tokens = [];
  const { client } = setup({ token: () => (tokens.push(1), jwt(100, { n: tokens.length })) });
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.say({ event: "heartbeat", data: { time: new Date(Date.now() + 95_000).toISOString(), rooms: {} } });
  tick(4_000);
  assert.equal(tokens.length, 2);
  client.close();
});

test("a refused token is asked for anew, twice; none is the end", async () => {
  const why = [];
  const { client } = setup({ token: ({ refused }) => (why.push(refused), "t" + why.length) });
  Peer.last.accept();
  Peer.last.drop(4401, "expired");
  assert.equal(Peer.last.protocols[1], "bearer.t2"); // at once
  Peer.last.accept();
  Peer.last.drop(4401, "expired");
  tick(1000);
  Peer.last.accept();
  Peer.last.drop(4401, "expired");
  assert.deepEqual([why, client.status], [[false, true, true], "unauthorized"]);
  const none = setup({ token: () => null });
  assert.deepEqual([none.client.status, Peer.all.length], ["unauthorized", 0]);
  let fails = true;
  const late = setup({ token: async () => { if (fails) throw new Error("the network"); return "t"; } });
  await settled();
  assert.equal(late.client.status, "waiting");
  fails = false;
  tick(1000);
  await settled();
  assert.equal(Peer.all.length, 1);
  late.client.close();
});

test("another token goes over the open socket, or begins anew", () => {
  const { client } = live();
  client.setToken("u");
  assert.deepEqual(Peer.last.sent.at(-1), { event: "authenticate", id: 2, data: { token: "u" } });
  Peer.last.say({ event: "error", id: 2, data: { code: "token-invalid" } });
  assert.equal(client.status, "unauthorized");
  client.setToken("v");
  assert.equal(Peer.last.protocols[1], "bearer.v");
  client.close();
});

test("a token that is replaced while a socket opens goes over it first", () => {
  const { client } = setup();
  client.setToken("u");
  Peer.last.accept();
  assert.deepEqual(Peer.last.sent.map(({ event, data }) => [event, data.token]), [["authenticate", "u"], ["join-system", undefined]]);
  client.close();
});

test("a token that cannot be taken now is sent again", () => {
  const { client } = live();
  client.setToken("u");
  Peer.last.say({ event: "error", id: 2, data: { code: "rate-limited", retryAfterMs: 70 } });
  tick(70);
  assert.deepEqual(Peer.last.sent.at(-1), { event: "authenticate", id: 3, data: { token: "u" } });
  Peer.last.say({ event: "error", id: 3, data: { code: "unavailable" } });
  tick(8_000);
  assert.deepEqual(Peer.last.sent.at(-1), { event: "authenticate", id: 4, data: { token: "u" } });
  Peer.last.drop(4401, "expired"); // the old one
  assert.equal(Peer.last.protocols[1], "bearer.u");
  client.close();
});

test("a token that expires while another is under way is not the end", () => {
  const { client } = live();
  client.setToken("u");
  Peer.last.drop(4401, "expired");
  assert.equal(Peer.last.protocols[1], "bearer.u");
  Peer.last.accept();
  Peer.last.drop(4401, "expired");
  assert.equal(client.status, "unauthorized");
});

test("a token that was not refused is not said to have been", () => {
  const why = [];
  const { client } = setup({ token: ({ refused }) => (why.push(refused), jwt(100, { n: why.length })) });
  Peer.last.accept();
  Peer.last.drop(4401, "expired");
  Peer.last.drop(1006); // the new one was not looked at
  tick(1000);
  assert.deepEqual([why, Peer.all.length], [[false, true], 3]);
  client.close();
});

test("a token that is replaced by its function while a socket opens goes over it", () => {
  let n = 0;
  const { client } = setup({ token: () => jwt(30, { n: n++ }) });
  tick(21_000);
  assert.equal(n, 2);
  Peer.last.accept();
  assert.deepEqual(Peer.last.sent.map((frame) => frame.event), ["authenticate", "join-system"]);
  assert.notEqual("bearer." + Peer.last.sent[0].data.token, Peer.last.protocols[1]);
  client.close();
});

test("a new token opens what the old one was not for", () => {
  const { client } = setup({ systemId: ["a", "b"] });
  Peer.last.accept();
  Peer.last.say({ event: "joined", id: 1, data: { systemId: "a", position: "5-0", seq: 5 } }, snapshot(5, "a"));
  Peer.last.say({ event: "error", id: 2, data: { code: "forbidden" } });
  client.setToken("u");
  Peer.last.say({ event: "authenticated", id: 3, data: {} });
  assert.deepEqual(Peer.last.joins.slice(2), [{ systemId: "b", snapshot: true }]);
  Peer.last.joined(7);
  assert.deepEqual([client.status, client.statusOf("b"), client.state("b").seq], ["live", "live", 7]);
  client.close();
});

// Another user must see nothing of the first one's, whichever way the token comes.
const plug = (deviceId) => snapshot(5, "s", [{ deviceId, online: true }]);
const isEmpty = (client) => client.devices.size === 0 && !client.isLoaded() && client.lastEvent === null;

test("a token of another user is for another socket, and a new state", () => {
  const place = storage();
  const { client, seen, heard } = setup({ token: jwt(100, { sub: "ana" }), storage: place });
  const joined = (peer, deviceId) => {
    peer.say({ event: "joined", id: peer.sent.findLast((f) => f.event === "join-system").id, data: { systemId: "s", position: "5-0", seq: 5, recovered: true } });
    peer.say(plug(deviceId));
  };
  Peer.last.accept();
  joined(Peer.last, "of-ana");
  Peer.last.say(update(6));
  assert.deepEqual([[...client.devices.keys()], heard], [["of-ana", "d1"], [6]]);
  client.setToken(jwt(100, { sub: "ana", more: 1 })); // the same user
  assert.deepEqual([Peer.all.length, client.devices.size, Peer.last.sent.at(-1).event], [1, 2, "authenticate"]);
  const first = Peer.last;
  let told = 0;
  client.subscribe(() => told++);
  client.setToken(jwt(100, { sub: "eva" }));
  assert.ok(isEmpty(client) && told > 0 && seen.includes("reset"));
  assert.deepEqual([Peer.all.length, first.readyState, first.sent.filter((f) => f.event === "authenticate").length], [2, 3, 1]);
  Peer.last.accept();
  assert.deepEqual(Peer.last.joins, [{ systemId: "s", snapshot: true }]);
  assert.ok(isEmpty(client));
  joined(Peer.last, "of-eva");
  assert.deepEqual([[...client.devices.keys()], heard], [["of-eva"], [6]]);
  // The place of each is their own, also after a reload.
  assert.deepEqual([...place.kept], [["plugcast ws://x/ws s  ana", "6-0"], ["plugcast ws://x/ws s  eva", "5-0"]]);
  client.close();
});

test("a function that gives another user's token is noticed before anything is sent with it", async () => {
  let user = "ana";
  const { client } = setup({ token: async () => jwt(100, { sub: user }) });
  await settled();
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.say(plug("of-ana"));
  user = "eva";
  for (const ms of [25_000, 25_000, 21_000]) { // until it is time to replace it
    tick(ms);
    Peer.last.say({ event: "pong" });
  }
  await settled();
  assert.ok(isEmpty(client));
  assert.equal(Peer.all.at(-2).sent.some((f) => f.event === "authenticate"), false);
  Peer.last.accept();
  assert.deepEqual(Peer.last.joins, [{ systemId: "s", snapshot: true }]);
  client.close();
});
