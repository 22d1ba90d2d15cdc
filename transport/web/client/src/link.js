// The link to the server: one WebSocket after the other. It knows tokens, pauses
// and endings, and nothing of systems or their state. It touches no global before
// it is opened, and needs no page.

/**
 * @import { Frame, Status, StatusInfo, TokenSource } from "./events.js"
 * @typedef {object} Uses what a link tells its owner
 * @property {() => void} onOpen there is a new socket: nothing is joined
 * @property {() => void} onUser the token in use is another user's than the one before
 * @property {() => void} onDown the socket is gone
 * @property {(frame: Frame) => void} onFrame
 * @property {() => void} onRead all frames of a message were told
 * @property {() => void} onStatus
 */

const quiet = 30_000; // ms without any frame after which the server is asked for one; heartbeats come every 15 s
const patience = 8_000; // ms that it has to answer, and 4 times that for opening a socket
const steady = 10_000; // ms after which a connection counts as good, and the pauses begin anew
const pauses = { first: 500, most: 20_000, flood: 60_000 }; // ms
const early = 30_000; // ms before its end at which a token is replaced; sooner if it lives shortly
const longest = 0x7fffffff; // ms that a timer can wait

/** Close codes after which there is no return.
 * @type {Record<number, Status>} */
const final = { 1009: "protocol", 4400: "protocol", 4403: "forbidden" };

export class Link {
  /** @type {StatusInfo} */ info = Object.freeze({ status: "idle" });
  /** @type {WebSocket | null} */ socket = null;
  /** @type {string | null} the token in use */ current = null;
  /** @type {string | undefined} whose token that is, or was last */ user = undefined;
  /** @type {number | null} the request that replaces it */ renewal = null;
  /** @type {string | undefined} what the server said last of why */ reason = undefined;
  running = false;
  turn = 0; // counts the attempts to open a socket, so that an old one's answer is known as such
  requests = 0;
  tries = 0;
  refusals = 0; // of tokens, since a connection was good
  refused = false; // the token in use was
  notBefore = 0; // ms since 1970: the next try, if the server asked for a pause
  mayReturn = false; // after being thrown out, unless it is said
  skew = 0; // ms that the server's clock is ahead
  /** @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */ timers = {};

  /**
   * @param {() => string} url
   * @param {TokenSource} token
   * @param {Uses} uses
   * @param {{ WebSocket?: new (url: string, protocols: string[]) => WebSocket, random?: () => number }} [options]
   */
  constructor(url, token, uses, { WebSocket, random = Math.random } = {}) {
    this.url = url;
    this.token = token;
    this.uses = uses;
    this.Socket = WebSocket;
    this.random = random;
  }

  /** Begins, also again after an end. */
  start() {
    if (this.running) return;
    this.running = true;
    this.tries = this.refusals = 0;
    this.open();
  }

  open() {
    this.drop();
    this.mayReturn = false;
    this.reason = undefined;
    const { turn } = this;
    this.after("watch", 4 * patience, () => this.later());
    this.status("connecting");
    if (turn !== this.turn) return; // whoever was told closed it
    this.ask((token) => this.dial(token), () => {
      this.reason = "the token function failed";
      this.later();
    });
  }

  /**
   * Gets a token, at once where that is possible. An answer that comes when
   * another attempt has begun is not told.
   * @param {(token: string | null) => void} got
   * @param {(error: unknown) => void} failed
   */
  ask(got, failed) {
    const turn = this.turn;
    /** @template T @param {(value: T) => void} then @returns {(value: T) => void} */
    const still = (then) => (value) => void (turn === this.turn && this.running && then(value));
    let token;
    try {
      token = this.credential();
    } catch (error) {
      return failed(error);
    }
    if (token && typeof token === "object") token.then(still(got), still(failed));
    else got(token);
  }

  /** The token in use while it is good, else a fresh one. */
  credential() {
    if (typeof this.token === "string") return this.token;
    if (this.current && !this.refused && this.lasts(this.current) > patience) return this.current;
    return this.token({ refused: this.refused });
  }

  /** @param {string | null} token */
  dial(token) {
    if (!token) return this.end("unauthorized", "there is no token");
    this.adopt(token);
    let socket;
    try {
      socket = new (this.Socket ?? WebSocket)(this.url(), ["plugcast.v1", "bearer." + token]);
    } catch (error) {
      return this.end("protocol", String(error)); // no WebSocket, or a URL or a token that cannot be
    }
    this.socket = socket;
    this.requests = 0;
    let reach = "no answer: is the server there, and this page's origin allowed?"; // a browser does not say
    socket.onopen = () => {
      reach = "";
      this.listen();
      const newest = typeof this.token === "string" ? this.token : this.current;
      if (newest && newest !== token) this.authenticate(newest); // replaced meanwhile
      this.uses.onOpen();
    };
    socket.onerror = () => {}; // a close follows; Node's ws ends a program that does not listen
    socket.onmessage = (message) => this.read(message.data);
    socket.onclose = (close) => this.closed(close.code, close.reason || reach);
  }

  /** @param {string} text */
  read(text) {
    this.listen();
    const { socket } = this;
    try {
      const frames = JSON.parse(text);
      for (const frame of Array.isArray(frames) ? frames : [frames]) {
        if (socket !== this.socket) return; // a handler closed it; the rest is asked for again
        this.take(frame);
      }
    } catch (error) {
      if (socket === this.socket) this.renew();
      throw error; // only a broken server can get here: let it be seen
    } finally {
      this.uses.onRead();
    }
  }

  /** @param {Frame} frame */
  take(frame) {
    if (frame.event === "heartbeat") this.setClock(Date.parse(frame.data.time) - Date.now() || 0);
    if (frame.event === "forced-disconnect") {
      this.mayReturn = Boolean(frame.data.reconnect);
      this.reason = frame.data.reason;
    }
    if (frame.event === "error" && frame.id === undefined) this.reason = frame.data.detail;
    if (frame.id !== undefined && frame.id === this.renewal) return this.renewed(frame);
    const { socket } = this;
    this.uses.onFrame(frame);
    // The close that follows may be lost on the way.
    if (frame.event === "forced-disconnect" && !frame.data.reconnect && socket === this.socket) this.end("thrown-out", this.reason);
  }

  /**
   * Sends a request and answers with its id, which the answer repeats.
   * @param {string} event
   * @param {object} [data]
   */
  request(event, data) {
    const id = ++this.requests;
    if (this.socket?.readyState === 1) this.socket.send(JSON.stringify({ event, id, data }));
    return id;
  }

  /** Everything is there: whoever is connected for a while begins anew with the pauses. */
  settle() {
    this.refusals = 0;
    this.after("settled", steady, () => (this.tries = 0));
    this.status("live");
  }

  // --- tokens

  /** Takes a token into use, and answers whether it is another user's.
   * @param {string} token */
  adopt(token) {
    this.current = token;
    this.refused = false;
    this.schedule();
    const { user } = this;
    this.user = claims(token).sub ?? user;
    const another = user && user !== this.user;
    if (another) this.uses.onUser();
    return another;
  }

  /** Puts the replacement of the token off until shortly before its end.
   * @param {number} [least] ms */
  schedule(least = 0) {
    this.after("refresh", undefined);
    const left = this.current === null ? Infinity : this.lasts(this.current);
    if (typeof this.token === "string" || left === Infinity || left <= 0) return;
    const pause = Math.max(least, left - Math.min(early, left / 3));
    this.after("refresh", Math.min(pause, longest), () => (pause > longest ? this.schedule() : this.refresh()));
  }

  refresh() {
    const old = this.current;
    this.current = null; // or it would be given again
    this.ask(
      (token) => {
        if (token && token !== old && this.socket) this.authenticate(token);
        else this.postpone(old);
      },
      () => this.postpone(old),
    );
    this.current ??= old;
  }

  /** Tries again while the old token lasts; after that, the server says that it is over.
   * @param {string | null} old */
  postpone(old) {
    this.current = old;
    this.schedule(patience);
  }

  /** Replaces the token of the socket that is open.
   * @param {string} token */
  authenticate(token) {
    if (this.adopt(token)) this.open();
    else this.renewal = this.request("authenticate", { token });
  }

  /** @param {Frame} frame */
  renewed(frame) {
    const { code, retryAfterMs } = frame.data;
    if (code === "rate-limited" || code === "unavailable") {
      return this.after("again", retryAfterMs ?? patience, () => this.current && this.authenticate(this.current));
    }
    this.renewal = null;
    if (frame.event !== "error") return this.uses.onFrame(frame);
    this.drop();
    this.unauthorized();
  }

  /** A refused token is asked for anew: twice, unless it was good in between. */
  unauthorized() {
    if (typeof this.token === "string" || this.refusals++ >= 2) return this.end("unauthorized", this.reason);
    this.refused = true;
    if (this.refusals === 1) this.open();
    else this.later();
  }

  /** Tokens end by the server's clock.
   * @param {number} skew */
  setClock(skew) {
    const moved = Math.abs(skew - this.skew) > 1000;
    this.skew = skew;
    if (moved) this.schedule();
  }

  /** How long a JWT lasts, in ms; for ever, if that cannot be read.
   * @param {string} token */
  lasts(token) {
    return (claims(token).exp ?? Infinity) * 1000 - Date.now() - this.skew;
  }

  // --- the end of a socket, and what follows

  /** @param {number} code @param {string} reason */
  closed(code, reason) {
    this.reason ??= reason || undefined;
    const { mayReturn, renewal } = this;
    this.drop();
    if (code === 4401) return renewal === null ? this.unauthorized() : this.open(); // that was the old token
    if (code === 4409 && !mayReturn) return this.end("thrown-out", this.reason);
    const ending = final[code];
    if (ending) return this.end(ending, this.reason);
    this.later(code === 4429 ? pauses.flood : 0);
  }

  /** Gives the socket up and tries again. */
  renew() {
    this.drop();
    this.later();
  }

  /**
   * Tries again after a pause whose bound grows, and that differs from the others'
   * who lost the same server.
   * @param {number} [least] ms
   */
  later(least = 0) {
    if (!this.running) return;
    this.drop();
    const bound = Math.min(pauses.most, 2 * pauses.first * 2 ** this.tries++);
    const pause = Math.round(least + pauses.first + this.random() * (bound - pauses.first));
    this.notBefore = Date.now() + least;
    const offline = globalThis.navigator?.onLine === false;
    this.after("retry", pause, () => this.open());
    this.status(offline ? "offline" : "waiting", { seconds: Math.ceil(pause / 1000), reason: this.reason });
  }

  /** The network is back, or somebody looks: no pause, unless the server asked for one, and no trust in an old socket. */
  wake() {
    if (!this.running) return;
    if (this.socket?.readyState === 1) this.probe();
    else if (!this.socket && this.info.status !== "connecting") {
      if (Date.now() < this.notBefore) this.after("retry", this.notBefore - Date.now(), () => this.open());
      else this.open();
    }
  }

  /** The page goes: the server hears it, and nothing is tried until {@link Link.wake}. */
  suspend() {
    if (!this.running) return;
    this.drop();
    this.status("offline");
  }

  /** A phone changes networks without saying so: a socket that is silent is asked. */
  listen() {
    this.after("watch", quiet, () => this.probe());
  }

  probe() {
    this.request("ping");
    this.after("watch", patience, () => this.renew());
  }

  /** @param {Status} status @param {string} [reason] */
  end(status, reason) {
    this.running = false;
    this.drop();
    this.status(status, { reason });
  }

  /** Lets go of the socket and of all timers. */
  drop() {
    const old = this.socket;
    this.turn++;
    this.socket = this.renewal = null;
    for (const name of Object.keys(this.timers)) this.after(name, undefined);
    if (!old) return;
    old.onopen = old.onmessage = old.onclose = null;
    if (old.readyState < 2) old.close(1000);
    this.uses.onDown();
  }

  /**
   * Sets one of the timers, or clears it.
   * @param {string} name
   * @param {number | undefined} ms
   * @param {() => void} [then]
   */
  after(name, ms, then = () => {}) {
    clearTimeout(this.timers[name]);
    this.timers[name] = ms === undefined ? undefined : setTimeout(then, ms);
  }

  /** @param {Status} status @param {Omit<StatusInfo, "status">} [more] */
  status(status, more = {}) {
    if (status === "live" && this.info.status === "live") return;
    this.info = Object.freeze({ status, ...more });
    this.uses.onStatus();
  }
}

/** Returns the user and the expiry of a JWT, or an empty object if it cannot be read.
 * @param {unknown} token
 * @returns {{ sub?: string, exp?: number }} */
export function claims(token) {
  try {
    const [, body = ""] = String(token).split(".");
    return Object(JSON.parse(atob(body.replace(/-/g, "+").replace(/_/g, "/"))));
  } catch {
    return {};
  }
}
