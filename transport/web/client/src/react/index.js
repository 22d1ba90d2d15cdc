"use client";

// The client in React 18 and 19: hooks on useSyncExternalStore. Nothing here
// touches the page before it is mounted, so it renders on a server as well.

import {
  createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore,
} from "react";
import { Client } from "../client.js";
import { acquire, keyOf, peek, release } from "./shared.js";

/**
 * @import { ReactNode } from "react"
 * @import { Assignment, Connection, Device, DeviceView, Equipment, Handlers, LogEvent, Options, Status } from "../events.js"
 *
 * @typedef {object} Socket What {@link useSocket} gives. A component is rendered again when what it read of this changed,
 * and only then.
 * @property {Status} status
 * @property {number | undefined} seconds until the next try, of `waiting` and `offline`
 * @property {string | undefined} reason in words, if the server gave any
 * @property {boolean} loaded whether the state is known, if perhaps not the newest
 * @property {readonly string[]} deviceIds sorted; the same list until there is another device
 * @property {ReadonlyMap<string, Device>} devices
 * @property {ReadonlyMap<string, Equipment>} equipment
 * @property {ReadonlyMap<string, Assignment>} assignments by device
 * @property {ReadonlyMap<string, Connection>} connections
 * @property {LogEvent | null} lastEvent
 * @property {Client} client the connection itself, for what is not here
 */

/** What a {@link Socket} reads, and where.
 * @type {Record<string, (client: Client) => unknown>} */
const parts = {
  status: (client) => client.status,
  seconds: (client) => client.info.seconds,
  reason: (client) => client.info.reason,
  loaded: (client) => client.isLoaded(),
  deviceIds: (client) => client.deviceIds,
  devices: (client) => client.devices,
  equipment: (client) => client.equipment,
  assignments: (client) => client.assignments,
  connections: (client) => client.connections,
  lastEvent: (client) => client.lastEvent,
};

const Context = createContext(/** @type {Client | null} */ (null));

/**
 * Connects while the component is mounted: components that ask for the same share
 * one connection. Without options it gives the one of the {@link SocketProvider}
 * above.
 * @param {Options} [options] a new url, system, name or user is a new connection; a new token of the same user is not
 * @returns {Socket}
 */
export function useSocket(options) {
  const above = useContext(Context);
  const own = useShared(options);
  const client = own ?? above;
  if (!client) throw new Error("useSocket needs options, or a <SocketProvider> above it");
  // What this component read last, with the values it got.
  const read = useRef(/** @type {{ client: Client, values: Map<string, unknown>, socket: Socket } | null} */ (null));
  const snapshot = useCallback(() => {
    const last = read.current;
    const fresh = last?.client === client && [...last.values].every(([name, value]) => parts[name]?.(client) === value);
    if (last && fresh) return last.socket;
    const values = new Map();
    const socket = tracked(client, values);
    read.current = { client, values, socket };
    return socket;
  }, [client]);
  const before = useMemo(() => tracked(client, new Map(), unconnected), [client]);
  return useSyncExternalStore(client.subscribe, snapshot, () => before);
}

/**
 * One device with what belongs to it: `stale`, and its `equipment`. Only what
 * concerns it renders the component again.
 * @param {string} deviceId
 * @param {{ systemId?: string, socket?: Socket }} [of] which system, of several; whose, if there is no provider
 * @returns {DeviceView | undefined}
 */
export function useDevice(deviceId, { systemId, socket } = {}) {
  const client = useClient(socket);
  return useSyncExternalStore(client.subscribe, () => client.device(deviceId, systemId), () => undefined);
}

/**
 * A part of what the client knows. The component is rendered again when the part
 * is another: pick what is there, and make nothing new.
 * @template Part
 * @param {(client: Client) => Part} select
 * @param {{ socket?: Socket }} [of]
 * @returns {Part}
 */
export function useSelector(select, { socket } = {}) {
  const client = useClient(socket);
  return useSyncExternalStore(client.subscribe, () => select(client), () => select(unconnected));
}

/**
 * Calls the newest handler for each event of that name, once and in order, while
 * the component is mounted.
 * @template {keyof Handlers} Name
 * @param {Name} name
 * @param {Handlers[Name]} handler
 * @param {{ socket?: Socket }} [of]
 */
export function useEvent(name, handler, { socket } = {}) {
  const client = useClient(socket);
  const newest = useRef(handler);
  useEffect(() => void (newest.current = handler));
  useEffect(
    () => client.on(name, /** @type {any} */ ((/** @type {any[]} */ ...args) => /** @type {any} */ (newest.current)(...args))),
    [client, name],
  );
}

/**
 * Connects, as {@link useSocket} does, for all components below.
 * @param {Options & { children?: ReactNode }} props
 */
export function SocketProvider({ children, ...options }) {
  const client = useShared(options);
  return createElement(Context.Provider, { value: client }, children);
}

/** @param {Socket} [socket] @returns {Client} */
function useClient(socket) {
  const above = useContext(Context);
  const client = socket?.client ?? above;
  if (!client) throw new Error("this hook needs a socket, or a <SocketProvider> above it");
  return client;
}

/**
 * The client that is shared under the key of these options. Rendering makes one at
 * most and connects nothing; mounting does.
 * @param {Options} [options]
 * @returns {Client | null}
 */
function useShared(options) {
  const key = options ? keyOf(options) : null;
  const made = useMemo(() => (options && key ? (peek(key, options) ?? new Client(options)) : null), [key]);
  const [shared, setShared] = useState(/** @type {{ key: string, client: Client } | null} */ (null));
  useEffect(() => {
    if (!key || !made) return;
    const client = acquire(key, made);
    setShared(client === made ? null : { key, client });
    return () => release(key, client);
  }, [key, made]);
  const client = shared && shared.key === key ? shared.client : made;
  const token = options?.token;
  const isText = typeof token === "string";
  useEffect(() => {
    if (client && isText) client.setToken(token);
  }, [client, isText && token]);
  useEffect(() => {
    if (client && token && !isText) client.setToken(token); // the newest function; none is asked for it
  });
  return client;
}

/** Stands in where nothing is connected yet: on a server, and while a page takes over what that rendered. */
const unconnected = new Client({ token: "", systemId: [], storage: null });

/**
 * A socket that notes what is read of it.
 * @param {Client} client
 * @param {Map<string, unknown>} values
 * @param {Client} [from] where the values are from
 * @returns {Socket}
 */
function tracked(client, values, from = client) {
  const socket = { client };
  for (const [name, value] of Object.entries(parts)) {
    Object.defineProperty(socket, name, {
      enumerable: true,
      get() {
        if (!values.has(name)) values.set(name, value(from));
        return values.get(name);
      },
    });
  }
  return /** @type {Socket} */ (socket);
}
