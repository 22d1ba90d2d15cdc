// What a program that installed the package may rely on, under Node.
import assert from "node:assert/strict";
import { Client, Fold } from "@plugcast/client";

assert.equal(typeof globalThis.window, "undefined");
const client = new Client({ url: "wss://plugcast.example/ws", token: "t", systemId: "s" });
assert.equal(client.status, "idle");
assert.equal(client.devices.size, 0);
assert.equal(typeof Fold, "function");
