// Clients that components share: one for each key, while a component uses it.

import { Client } from "../client.js";
import { claims } from "../link.js";

/** @import { Options } from "../events.js" */

// A component that is mounted again at once, as in StrictMode or on the way from
// one page to the next, finds its connection open.
const linger = 500; // ms

/** @type {Map<string, { client: Client, users: number, timer?: ReturnType<typeof setTimeout> }>} */
const shared = new Map();

/** Returns the key by which components share a connection: another user must not see the first one's.
 * @param {Options} options */
export function keyOf({ url = "", systemId, name = "", conflate = false, user, token }) {
  return JSON.stringify([url, systemId, name, conflate, user ?? claims(token).sub]);
}

/**
 * Returns the client of a key, if there is one. A client without users is only reused with the same token, or
 * the same function for it, because another function may return the token of another user.
 * @param {string} key
 * @param {Options} options
 */
export function peek(key, { token, user }) {
  const entry = shared.get(key);
  if (entry && (entry.users > 0 || user !== undefined || typeof token === "string" || entry.client.options.token === token)) return entry.client;
}

/**
 * Takes part in the client of a key. It is made of the candidate if nobody has one.
 * One that has come to an end is not brought back by another component.
 * @param {string} key
 * @param {Client} candidate
 */
export function acquire(key, candidate) {
  const known = shared.get(key);
  const entry = known && (known.client === candidate || peek(key, candidate.options)) ? known : { client: candidate, users: 0 };
  shared.set(key, entry);
  clearTimeout(entry.timer);
  entry.users++;
  if (entry.client.status === "idle") entry.client.connect();
  return entry.client;
}

/** Takes part no more. The last one ends the connection, after a moment.
 * @param {string} key @param {Client} client */
export function release(key, client) {
  const entry = shared.get(key);
  if (!entry || entry.client !== client || --entry.users > 0) return;
  entry.timer = setTimeout(() => {
    if (shared.get(key) === entry) shared.delete(key);
    client.close();
  }, linger);
}
