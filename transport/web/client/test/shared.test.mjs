// How components share a client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { acquire, keyOf, peek, release } from "../src/react/shared.js";
import { Peer, jwt, setup, tick, timers } from "./peer.mjs";

test("components that come do not bring back a connection that was ended on purpose", () => {
  const { client } = setup({ start: false });
  acquire("k", client);
  Peer.last.accept();
  Peer.last.joined(5);
  Peer.last.drop(4409);
  acquire("k", client);
  release("k", client);
  release("k", client);
  acquire("k", client); // at once, as in StrictMode
  assert.deepEqual([client.status, Peer.all.length], ["thrown-out", 1]);
  release("k", client);
  tick(500);
  acquire("k", client); // a page that is opened again
  assert.equal(Peer.all.length, 2);
  release("k", client);
  tick(500);
  assert.deepEqual([client.status, timers.size], ["idle", 0]);
});

test("another user shares nothing, and nobody is taken for the user of a page that was left", () => {
  const options = (token, more) => ({ systemId: "s", token, ...more });
  const ana = keyOf(options(jwt(100, { sub: "ana" })));
  assert.equal(keyOf(options(jwt(200, { sub: "ana", n: 1 }))), ana);
  assert.notEqual(keyOf(options(jwt(100, { sub: "eva" }))), ana);
  const [token, another] = [() => "t", () => "u"];
  const key = keyOf(options(token));
  assert.equal(keyOf(options(another)), key); // whose they are is not known
  assert.notEqual(keyOf(options(token, { user: "ana" })), keyOf(options(token, { user: "eva" })));

  const { client } = setup({ token, start: false });
  const other = setup({ token: another, start: false }).client;
  acquire(key, client);
  assert.equal(peek(key, options(another)), client); // two components of one page
  release(key, client);
  assert.deepEqual([peek(key, options(another)), peek(key, options(token))], [undefined, client]);
  assert.equal(acquire(key, other), other);
  tick(500);
  assert.deepEqual([client.status, peek(key, options(another))], ["idle", other]);
  release(key, other);
  tick(500);
  assert.equal(timers.size, 0);
});
