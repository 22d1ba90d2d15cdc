// The client: systems over a link, with what pages need around them: handlers,
// subscriptions, and the place in the log, kept across reloads.

import { Fold } from "./fold.js";
import { Link } from "./link.js";
import { Room } from "./room.js";

/** @import { ClientEvents, Envelope, Frame, Handlers, LogEvent, Options, Status, TokenSource } from "./events.js" */

/** What is known of a system before its first snapshot. */
const nothing = new Fold({ systemId: "", position: "0-0", seq: 0, devices: [], equipment: [], assignments: [], connections: [] });

/** A connection to one plugcast, for one system or several. Nothing happens before {@link Client.connect}. */
export class Client {
  /** @type {LogEvent | null} the last one that was delivered */
  lastEvent = null;
  /** @type {Map<string, Set<(...args: any[]) => void>>} */
  #handlers = new Map();
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {AbortController | null} ends the listening to the page */
  #page = null;
  /** @type {Status} the status that was told last */
  #told = "idle";
  #dirty = false; // something is new since listeners were called
  #link;
  #rooms;

  /** @param {Options} options */
  constructor(options) {
    if (options.systemId == null) throw new TypeError("plugcast: a client needs a systemId");
    this.options = options;
    /** @type {readonly string[]} */
    this.systemIds = typeof options.systemId === "string" ? [options.systemId] : [...options.systemId];
    this.#rooms = new Map(this.systemIds.map((id) => [id, this.#newRoom(id)]));
    this.#link = new Link(() => address(options.url), options.token, {
      onOpen: () => this.#each((room) => {
        const kept = this.#stored((storage) => storage.getItem(this.#key(room)));
        if (!room.fold && /^\d+-\d+$/.test(kept ?? "")) room.heard ??= kept;
        room.join();
      }),
      onUser: () => {
        this.lastEvent = null;
        this.#each((room) => room.lose(null));
        this.#flush();
      },
      onDown: () => this.#each((room) => room.down()),
      onFrame: (frame) => this.#take(frame),
      onRead: () => this.#flush(),
      onStatus: () => this.#statusChanged(),
    }, options);
  }

  // --- what a page reads

  /** @returns {Status} */
  get status() { return this.#link.info.status; }

  /** The status with what belongs to it: the same object until it changes. */
  get info() { return this.#link.info; }

  /**
   * The state of a system: of the first, unless it is named. What it hands out does
   * not change; read again after a change. It is empty before the first snapshot.
   * @param {string} [systemId]
   */
  state(systemId = this.systemIds[0]) {
    return this.#rooms.get(/** @type {string} */ (systemId))?.fold ?? nothing;
  }

  /** Whether the state of a system is known, if perhaps not the newest.
   * @param {string} [systemId] */
  isLoaded(systemId) { return this.state(systemId) !== nothing; }

  /** Where a system is, of several: one that is forbidden does not keep the others.
   * @param {string} [systemId] */
  statusOf(systemId = this.systemIds[0]) {
    return this.#rooms.get(/** @type {string} */ (systemId))?.status;
  }

  get devices() { return this.state().devices; }
  get equipment() { return this.state().equipment; }
  get assignments() { return this.state().assignments; }
  get connections() { return this.state().connections; }
  get deviceIds() { return this.state().deviceIds; }

  /** A device with what belongs to it: the same object until one of them changes.
   * @param {string} deviceId @param {string} [systemId] */
  device(deviceId, systemId) { return this.state(systemId).device(deviceId); }

  // --- what a page hears

  /**
   * Calls the handler for each event of that name, once and in order, from now on.
   * The state has the event already. Answers with a function that ends it.
   * @template {keyof Handlers} Name
   * @param {Name} name
   * @param {Handlers[Name]} handler
   * @returns {() => void}
   */
  on(name, handler) {
    const own = /** @type {(...args: any[]) => void} */ ((...args) => /** @type {any} */ (handler)(...args));
    const all = this.#handlers.get(name) ?? new Set();
    this.#handlers.set(name, all.add(own));
    return () => void all.delete(own);
  }

  /**
   * Calls the listener after anything changed, once for all that came at a time.
   * @param {() => void} listener
   * @returns {() => void} ends it
   */
  subscribe = (listener) => {
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  };

  // --- what a page does

  /** Connects, and stays connected. Also after {@link Client.close} or an end: then it goes on from where it was. */
  connect() {
    if (this.#link.running) return;
    this.#each((room) => room.move("joining"));
    this.#watchPage();
    this.#link.start();
  }

  /** Ends the connection, and leaves nothing behind but the state that was known. */
  close() {
    this.#leave();
    this.#link.end("idle");
    this.#each((room) => {
      room.kept = null;
      this.#stored((storage) => storage.removeItem(this.#key(room)));
    });
  }

  /**
   * Replaces the token: on the open socket, or for a new try if the old one was
   * refused. One of another user is for another socket, and nothing of the first
   * user's state stays. Functions are asked when a token is needed.
   * @param {TokenSource} token
   */
  setToken(token) {
    const link = this.#link;
    if (token === link.token) return;
    link.token = token;
    if (typeof token !== "string") return;
    if (link.socket?.readyState === 1) link.authenticate(token);
    else if (this.status === "unauthorized" || this.status === "forbidden") this.connect();
  }

  // --- inside

  /** @param {string} systemId */
  #newRoom(systemId) {
    return new Room(systemId, {
      request: (event, data) => this.#link.request(event, data),
      renew: () => this.#link.renew(),
      isHeard: () => [...this.#handlers].some(([name, all]) => all.size > 0 && !(name in quietNames)),
      deliver: (event) => this.#deliver(event),
      tell: (name) => this.#tell(name, { systemId }),
      changed: () => this.#roomChanged(),
    }, Boolean(this.options.conflate));
  }

  /** @param {(room: Room) => void} what */
  #each(what) {
    for (const room of this.#rooms.values()) what(room);
  }

  /** @param {Frame} frame */
  #take(frame) {
    switch (frame.event) {
      case "heartbeat":
        return this.#each((room) => room.beat(frame.data.rooms?.[room.systemId]));
      case "forced-disconnect":
        return this.#tell("forced-disconnect", /** @type {any} */ (frame.data));
      case "error":
        return this.#each((room) => room.take(frame));
      case "joined":
      case "snapshot":
      case "left":
        return this.#rooms.get(frame.data.systemId)?.take(frame);
      case "authenticated": // perhaps for more than before
        return this.#each((room) => room.status === "forbidden" && room.join());
      case "connection-status":
      case "pong":
        return;
      default:
        this.#dirty = true;
        this.#rooms.get(/** @type {string} */ (frame.systemId))?.apply(/** @type {any} */ (frame));
    }
  }

  /** Makes one status of the link's and the rooms'. */
  #roomChanged() {
    const link = this.#link;
    const rooms = [...this.#rooms.values()];
    this.#dirty = true;
    if (!link.running || !link.socket) return;
    const open = rooms.filter((room) => room.status === "joining" || room.status === "live");
    const [first] = rooms;
    if (open.length === 0 && first) link.end(/** @type {Status} */ (first.status), first.reason);
    else if (open.every((room) => room.status === "live")) link.settle();
    else if (this.status === "live") link.status("connecting");
  }

  #statusChanged() {
    this.#dirty = true;
    if (!this.#link.running) this.#leave();
    if (this.#told !== this.status || this.status === "waiting") this.#tell("status", this.info);
    this.#told = this.status;
    this.#flush();
  }

  /** @param {Envelope} event */
  #deliver(event) {
    this.lastEvent = /** @type {LogEvent} */ (event);
    this.#call(event.event, event.data, event);
    this.#call("*", event.data, event);
  }

  /**
   * @template {keyof ClientEvents} Name
   * @param {Name} name
   * @param {ClientEvents[Name]} data
   */
  #tell(name, data) {
    this.#dirty = true;
    this.#call(name, data);
  }

  /** @param {string} name @param {unknown[]} args */
  #call(name, ...args) {
    callEach(this.#handlers.get(name) ?? new Set(), args);
  }

  /** Keeps the place and calls the listeners: once for a message, however many events are in it. */
  #flush() {
    if (!this.#dirty) return;
    this.#dirty = false;
    if (this.#link.running) this.#each((room) => this.#keep(room));
    callEach(this.#listeners, []);
  }

  /** @param {Room} room */
  #keep(room) {
    const { heard } = room;
    if (heard === null || heard === room.kept) return;
    room.kept = heard;
    this.#stored((storage) => storage.setItem(this.#key(room), heard));
  }

  /** Does something with the storage, which may be full or forbidden: then nothing is kept.
   * @template T
   * @param {(storage: Pick<Storage, "getItem" | "setItem" | "removeItem">) => T} use
   * @returns {T | null} */
  #stored(use) {
    try {
      const { storage = globalThis.sessionStorage } = this.options;
      return storage && use(storage);
    } catch {
      return null;
    }
  }

  /** @param {{ systemId: string }} room */
  #key({ systemId }) {
    return ["plugcast", address(this.options.url), systemId, this.options.name ?? ""].concat(this.#link.user ?? []).join(" ");
  }

  /** Listens to what the page and the network do. A page that is put aside closes
   * its socket, or the browser cannot keep it for the way back. */
  #watchPage() {
    if (typeof document === "undefined" || this.#page) return;
    this.#page = new AbortController();
    const { signal } = this.#page;
    const wake = () => this.#link.wake();
    for (const name of ["online", "offline", "pageshow"]) window.addEventListener(name, wake, { signal });
    window.addEventListener("pagehide", () => this.#link.suspend(), { signal });
    document.addEventListener("resume", wake, { signal });
    document.addEventListener("visibilitychange", () => document.hidden || wake(), { signal });
  }

  #leave() {
    this.#page?.abort();
    this.#page = null;
  }
}

/** Handlers of these do not make events that were missed worth asking for. */
const quietNames = { status: 1, state: 1, reset: 1, "forced-disconnect": 1 };

/** Calls those that are there now, and are not ended meanwhile. A fault of one is
 * kept from the others, and can be seen.
 * @param {Set<(...args: any[]) => void>} all @param {unknown[]} args */
function callEach(all, args) {
  for (const one of [...all]) {
    try {
      if (all.has(one)) one(...args);
    } catch (error) {
      if (typeof reportError === "function") reportError(error);
      else queueMicrotask(() => { throw error; });
    }
  }
}

/** The WebSocket URL that is meant.
 * @param {string} [url] */
function address(url = "/ws") {
  const full = new URL(url, globalThis.location?.href);
  full.protocol = full.protocol.replace(/^http/, "ws");
  full.hash = "";
  return full.href;
}
