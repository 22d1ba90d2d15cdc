// How a client joins, resumes, heals and gives up.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../src/index.js";
import { Peer, live, setup, snapshot, storage, tick, timers, update } from "./peer.mjs";

test("joins with a snapshot, and resumes without one", () => {
  const { client, seen, heard } = setup();
  assert.deepEqual(Peer.last.protocols, ["plugcast.v1", "bearer.t"]);
  Peer.last.accept();
  assert.deepEqual(Peer.last.sent, [{ event: "join-system", id: 1, data: { systemId: "s", snapshot: true } }]);
  Peer.last.joined(5);
  Peer.last.say(update(6), update(7));
  assert.deepEqual(seen, ["connecting", "state", "live"]);
  Peer.last.drop(1006);
  assert.equal(client.status, "waiting");
  tick(1000);
  Peer.last.accept();
  assert.deepEqual(Peer.last.joins, [{ systemId: "s", after: "7-0" }]);
  Peer.last.joined(7);
  Peer.last.say([update(7), update(8)]);
  assert.equal(client.state().seq, 8);
  assert.deepEqual(heard, [6, 7, 8]);
  client.close();
});

test("asks for everything when the log does not have what came since, and says so", () => {
  const { seen, heard, client } = live();
  Peer.last.drop(1012);
  tick(1000);
  Peer.last.accept();
  Peer.last.joined(9, { recovered: false });
  assert.deepEqual(Peer.last.joins.at(-1), { systemId: "s", snapshot: true });
  Peer.last.joined(9);
  Peer.last.say(update(10));
  assert.deepEqual([seen.slice(-2), heard], [["state", "live"], [10]]);
  assert.ok(seen.includes("reset"));
  client.close();
});

test("does not go on from a log that is another one", () => {
  live();
  Peer.last.drop(1006);
  tick(1000);
  Peer.last.accept();
  Peer.last.joined(3, { position: "5-0" });
  assert.deepEqual(Peer.last.joins.at(-1), { systemId: "s", snapshot: true });
});

test("begins anew when the log lost its newest events", () => {
  const { heard, seen } = live();
  Peer.last.say(update(6));
  Peer.last.say({ event: "joined", data: { systemId: "s", position: "4-0", seq: 4, recovered: false } });
  assert.deepEqual(Peer.last.joins.at(-1), { systemId: "s", snapshot: true });
  Peer.last.joined(7);
  assert.deepEqual(Peer.last.joins.at(-1), { systemId: "s", after: "4-0" }); // 5 to 7 are others than before
  Peer.last.joined(4);
  Peer.last.say([5, 6, 7, 8].map((seq) => update(seq)));
  assert.deepEqual(heard, [6, 5, 6, 7, 8]);
  assert.ok(seen.includes("reset"));
});

for (const [name, frame] of [
  ["a hole in the sequence", update(7)],
  ["a heartbeat that is ahead", { event: "heartbeat", data: { rooms: { s: { position: "9-0", seq: 9 } } } }],
]) {
  test(`resumes after ${name}, on another socket if that brings nothing`, () => {
    const { heard, client } = live();
    Peer.last.say(frame);
    assert.equal(client.status, "connecting");
    assert.deepEqual(Peer.last.joins.at(-1), { systemId: "s", after: "5-0" });
    Peer.last.say(update(8)); // still of the join before
    Peer.last.joined(5);
    assert.equal(client.status, "live");
    Peer.last.say(update(6), update(7));
    assert.deepEqual(heard, [6, 7]);
    Peer.last.say(update(9));
    Peer.last.joined(7);
    Peer.last.say(update(9));
    tick(1000);
    assert.equal(Peer.all.length, 2);
    client.close();
  });
}

test("goes on over what was left out on purpose", () => {
  const { client, heard } = live({ conflate: true });
  assert.equal(Peer.last.joins[0].conflate, true);
  Peer.last.say({ ...update(9), skipped: { from: 6, to: 8 } });
  assert.deepEqual([client.state().seq, heard, Peer.last.joins.length], [9, [9], 1]);
});

test("gives up a join that is never answered", () => {
  setup();
  Peer.last.accept();
  for (let t = 0; t < 30; t += 10) {
    tick(10_000);
    Peer.last.say({ event: "heartbeat", data: { rooms: {} } });
  }
  tick(1000);
  assert.equal(Peer.all.length, 2);
});

test("pauses of 0.5 to 20 s whose bound grows, and anew after a good connection", () => {
  for (const [random, expected] of [[() => 0, [500, 500, 500, 500, 500, 500, 500]], [() => 1, [1000, 2000, 4000, 8000, 16000, 20000, 20000]]]) {
    const { client } = setup({ random });
    for (const pause of expected) {
      const before = Peer.all.length;
      Peer.last.drop(1006);
      tick(pause - 1);
      assert.equal(Peer.all.length, before);
      tick(1);
      assert.equal(Peer.all.length, before + 1);
    }
    Peer.last.accept();
    Peer.last.joined(5);
    tick(10_000);
    Peer.last.drop(1006);
    const before = Peer.all.length;
    tick(1000);
    assert.equal(Peer.all.length, before + 1);
    client.close();
  }
});

test("says how long it waits; a flood of requests waits a minute more", () => {
  const { client, seen } = live();
  Peer.last.drop(1006);
  assert.deepEqual({ ...client.info }, { status: "waiting", seconds: 1, reason: undefined });
  tick(1000);
  Peer.last.drop(4429, "too many requests");
  assert.deepEqual({ ...client.info }, { status: "waiting", seconds: 62, reason: "too many requests" });
  assert.equal(seen.at(-1), "waiting 62");
});

test("asks a silent socket, and gives it up", () => {
  const { client } = live();
  tick(29_000);
  Peer.last.say({ event: "heartbeat", data: { rooms: { s: { seq: 5 } } } });
  tick(30_000);
  assert.equal(Peer.last.sent.at(-1).event, "ping");
  Peer.last.say({ event: "pong" });
  tick(30_000);
  tick(7_999);
  assert.equal(Peer.all.length, 1);
  tick(1);
  tick(1000);
  assert.equal(Peer.all.length, 2);
  client.close();
});

test("a socket that never opens, a token that never comes", () => {
  setup();
  tick(32_000);
  tick(1000);
  assert.equal(Peer.all.length, 2);
  let asked = 0;
  const { client } = setup({ token: () => (asked++, new Promise(() => {})) });
  tick(32_000);
  assert.equal(client.status, "waiting");
  tick(1000);
  assert.deepEqual([asked, Peer.all.length], [2, 0]);
  client.close();
});

for (const [code, reason] of [[4401, "unauthorized"], [4403, "forbidden"], [4409, "thrown-out"], [4400, "protocol"], [1009, "protocol"]]) {
  test(`does not return after ${code}, unless it is told to`, () => {
    const { client, seen } = setup();
    Peer.last.accept();
    Peer.last.drop(code, "why");
    tick(120_000);
    assert.equal(Peer.all.length, 1);
    assert.equal(seen.at(-1), reason);
    assert.equal(client.info.reason, "why");
    client.connect();
    assert.equal(Peer.all.length, 2);
    client.close();
  });
}

test("returns after being thrown out when told so, once", () => {
  const { seen, client } = live();
  const told = [];
  client.on("forced-disconnect", (data) => told.push(data.reason));
  Peer.last.say({ event: "forced-disconnect", data: { reason: "restart", reconnect: true } });
  Peer.last.drop(4409);
  tick(1000);
  assert.equal(Peer.all.length, 2);
  Peer.last.accept();
  Peer.last.say({ event: "forced-disconnect", data: { reason: "enough", reconnect: false } });
  Peer.last.drop(4409);
  tick(120_000);
  assert.equal(Peer.all.length, 2);
  assert.equal(seen.at(-1), "thrown-out");
  assert.deepEqual([told, client.info.reason], [["restart", "enough"], "enough"]);
});

for (const [code, status] of [["forbidden", "forbidden"], ["banned", "thrown-out"], ["invalid-system-id", "protocol"], ["too-many-rooms", "protocol"]]) {
  test(`a join that is refused as ${code} ends it`, () => {
    const { client } = setup();
    Peer.last.accept();
    Peer.last.say({ event: "error", id: 1, data: { code, detail: "no" } });
    assert.deepEqual([client.status, client.info.reason, Peer.last.closedWith], [status, "no", 1000]);
    tick(120_000);
    assert.equal(Peer.all.length, 1);
  });
}

test("a join that is refused for now is tried again on the same socket", () => {
  const { client } = setup();
  Peer.last.accept();
  Peer.last.say({ event: "error", id: 1, data: { code: "rate-limited", retryAfterMs: 70 } });
  tick(70);
  assert.equal(Peer.last.joins.length, 2);
  Peer.last.say({ event: "error", id: 2, data: { code: "unavailable" } });
  tick(1000);
  Peer.last.joined(5);
  assert.deepEqual([client.status, Peer.last.joins.length, Peer.all.length], ["live", 3, 1]);
});

test("several systems over one socket: one that is forbidden does not keep the others", () => {
  const { client, heard } = setup({ systemId: ["a", "b"] });
  Peer.last.accept();
  assert.deepEqual(Peer.last.joins, [{ systemId: "a", snapshot: true }, { systemId: "b", snapshot: true }]);
  Peer.last.say({ event: "joined", id: 1, data: { systemId: "a", position: "5-0", seq: 5 } }, snapshot(5, "a"));
  assert.equal(client.status, "connecting");
  Peer.last.say({ event: "error", id: 2, data: { code: "forbidden" } });
  assert.deepEqual([client.status, client.statusOf("a"), client.statusOf("b")], ["live", "live", "forbidden"]);
  Peer.last.say(update(6, {}, "a"), update(6, {}, "b"), update(6, {}, "c"));
  assert.deepEqual([heard, client.device("d1", "a").deviceId, client.device("d1", "b")], [[6], "d1", undefined]);
  Peer.last.say({ event: "left", data: { systemId: "a", reason: "the new token does not allow this room" } });
  assert.deepEqual([client.status, client.info.reason], ["forbidden", "the new token does not allow this room"]);
});

test("a socket that breaks while it catches up goes on from there", () => {
  const kept = storage(new Map([["plugcast ws://x/ws s ", "7-0"]]));
  const { heard } = setup({ storage: kept });
  Peer.last.accept();
  Peer.last.joined(10);
  Peer.last.joined(7);
  Peer.last.say(update(8));
  Peer.last.drop(1006);
  tick(1000);
  Peer.last.accept();
  assert.deepEqual(Peer.last.joins, [{ systemId: "s", after: "8-0" }]);
  Peer.last.joined(8);
  Peer.last.say(update(9), update(10), update(11));
  assert.deepEqual(heard, [8, 9, 10, 11]);
});

test("a fault of a handler stays with it", async () => {
  const faults = [];
  globalThis.reportError = (error) => faults.push(error.message);
  const { client, heard } = setup({ hears: false });
  client.on("device-update", () => { throw new Error("mine"); });
  client.on("*", (_, event) => heard.push(event.seq));
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.say(update(6));
  assert.deepEqual([faults, heard, client.status], [["mine"], [6], "live"]);
  delete globalThis.reportError;
  client.close();
});

test("a handler that closes hears no more, and goes on from there when it connects again", () => {
  const { client, heard } = setup({ hears: false });
  client.on("*", (_, event) => { heard.push(event.seq); if (event.seq === 6) client.close(); });
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.say(update(6), update(7));
  assert.deepEqual([heard, client.status, Peer.last.closedWith], [[6], "idle", 1000]);
  client.connect();
  Peer.last.accept();
  Peer.last.joined(6);
  Peer.last.say(update(7));
  assert.deepEqual(heard, [6, 7]);
  client.close();
});

test("listeners are called once for a message, and what was handed out does not change", () => {
  const { client } = live();
  let calls = 0;
  const end = client.subscribe(() => calls++);
  const { devices, deviceIds } = client;
  Peer.last.say(update(6), update(7), update(8, { deviceId: "d2" }));
  assert.deepEqual([calls, devices.size, client.devices.size, client.deviceIds], [1, 0, 2, ["d1", "d2"]]);
  assert.notEqual(client.deviceIds, deviceIds);
  const [one, two, ids] = [client.device("d1"), client.device("d2"), client.deviceIds];
  Peer.last.say(update(9));
  assert.notEqual(client.device("d1"), one);
  assert.equal(client.device("d2"), two);
  assert.equal(client.deviceIds, ids);
  Peer.last.say({ event: "pong" });
  assert.equal(calls, 2);
  end();
  Peer.last.say(update(10));
  assert.equal(calls, 2);
});

for (const when of ["connecting", "waiting", "live"]) {
  test(`a handler that closes when it is told ${when} has closed`, () => {
    const { client } = setup({ start: false });
    client.on("status", ({ status }) => { if (status === when) client.close(); });
    client.connect();
    if (when !== "connecting") Peer.last.accept();
    if (when === "live") Peer.last.joined(5);
    if (when === "waiting") Peer.last.drop(1006);
    assert.deepEqual([client.status, client.statusOf()], ["idle", "joining"]);
    assert.equal(timers.size, 0);
    assert.equal(Peer.all.filter((peer) => peer.readyState < 2).length, 0);
  });
}

test("stays away when it was thrown out and the close was lost on the way", () => {
  const { client, seen } = live();
  Peer.last.say({ event: "forced-disconnect", data: { reason: "enough", reconnect: false } });
  Peer.last.drop(1006);
  tick(120_000);
  assert.deepEqual([Peer.all.length, seen.at(-1), client.info.reason], [1, "thrown-out", "enough"]);
});

test("a handler that takes another's place hears an event once, and one that was ended none", () => {
  const { client } = live();
  const heard = [];
  let end = () => {};
  const again = (_, { seq }) => {
    heard.push(seq);
    end();
    endOther();
    if (heard.length < 9) end = client.on("device-update", again);
  };
  end = client.on("device-update", again);
  const endOther = client.on("device-update", () => heard.push("other"));
  Peer.last.say(update(6), update(7));
  assert.deepEqual(heard, [6, 7]);
  let calls = 0;
  client.subscribe(() => endListener());
  const endListener = client.subscribe(() => calls++);
  Peer.last.say(update(8));
  assert.equal(calls, 0);
  client.close();
});

test("says what is missing", () => {
  for (const systemId of [undefined, null]) assert.throws(() => new Client({ token: "t", systemId }), /systemId/);
});

test("says what may be wrong when no socket opens", () => {
  const { client } = setup();
  Peer.last.drop(1006);
  assert.match(client.info.reason, /server.*origin/);
  tick(1000);
  Peer.last.accept();
  Peer.last.drop(1006);
  assert.equal(client.info.reason, undefined);
  client.close();
});
