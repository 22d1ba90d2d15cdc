// How components share a client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { acquire, release } from "../src/react/shared.js";
import { Peer, setup, tick, timers } from "./peer.mjs";

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
