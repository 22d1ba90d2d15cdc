// One system over a link: its state, and which of its events the page has heard.

import { Fold } from "./fold.js";

/**
 * @import { Envelope, Frame, Position, Snapshot, Status } from "./events.js"
 * @typedef {object} Host what a room asks of its client
 * @property {(event: string, data: object) => number} request sends, and answers with the request's id
 * @property {() => void} renew gives the socket up
 * @property {() => boolean} isHeard whether anybody listens to events
 * @property {(event: any) => void} deliver tells an event to them
 * @property {(name: "state" | "reset") => void} tell
 * @property {() => void} changed the room's status is another
 */

const overdue = 20_000; // ms after which a join is not waited for any more; the server gives up after 15 s
const retry = { first: 1_000, most: 20_000 }; // ms

/** Where a room is: on its way, live, or at one of the ends.
 * @typedef {"joining" | "live" | Extract<Status, "forbidden" | "thrown-out" | "protocol">} Place */

export class Room {
  /** @type {Fold | null} */ fold = null;
  /** @type {Position | null} the last event that was delivered */ heard = null;
  /** @type {Position | null} of that, what is in the storage */ kept = null;
  /** @type {Place} */ status = "joining";
  /** @type {string | undefined} why it ended */ reason = undefined;
  at = 0; // the seq of the last event that came in
  /** @type {number | null} the join that is under way */ asked = null;
  askedAt = 0;
  /** @type {number | null} where a gap was healed last */ healed = null;
  tries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ timer = undefined;

  /**
   * @param {string} systemId
   * @param {Host} host
   * @param {boolean} conflate
   */
  constructor(systemId, host, conflate) {
    this.systemId = systemId;
    this.host = host;
    this.conflate = conflate;
  }

  /**
   * Asks for everything once, and from then on for what came since. On the way to
   * that, events are let pass: the answer says from where they count.
   */
  join() {
    clearTimeout(this.timer);
    const data = { systemId: this.systemId, conflate: this.conflate || undefined };
    const from = this.fold ? { after: earlier(this.heard, this.fold.position) } : { snapshot: true };
    this.move("joining");
    this.asked = this.host.request("join-system", { ...data, ...from });
    this.askedAt = Date.now();
  }

  /** @param {Frame} frame of this system, or an answer to its join */
  take({ event, id, data }) {
    switch (event) {
      case "joined":
        if (id === undefined) this.lose(data.position);
        else if (id === this.asked) this.joined(data);
        return;
      case "snapshot":
        return this.load(/** @type {any} */ (data));
      case "left":
        return this.end("forbidden", data.reason);
      case "error":
        if (id === this.asked) this.refused(data);
    }
  }

  /** @param {Record<string, any>} data */
  joined(data) {
    this.asked = null;
    this.at = data.seq;
    if (!this.fold) return; // the snapshot follows
    const { position, seq } = this.fold;
    // The log does not have what came since, or it is not the log that it was.
    if (data.recovered === false || data.seq > seq || (data.position === position && data.seq !== seq)) return this.lose(null);
    this.live();
  }

  /**
   * Takes a state as a whole. After a reload events may be missing that were never
   * heard and are in the state already: they are asked for behind it.
   * @param {Snapshot} snapshot
   */
  load(snapshot) {
    if (this.asked !== null) return;
    this.fold = new Fold(snapshot);
    this.at = snapshot.seq;
    const missing = this.heard !== null && isEarlier(this.heard, snapshot.position);
    if (this.heard === null || !this.host.isHeard()) this.heard = later(this.heard, snapshot.position);
    this.host.tell("state");
    if (missing && this.heard !== snapshot.position) this.join();
    else this.live();
  }

  /** @param {Envelope<string, any>} event */
  apply(event) {
    const { fold } = this;
    if (!fold || this.asked !== null || this.status !== "live" || event.seq <= this.at) return;
    if ((event.skipped?.from ?? event.seq) > this.at + 1) return this.heal();
    this.at = event.seq;
    fold.apply(event); // nothing, if the snapshot has it
    if (this.heard !== null && !isEarlier(this.heard, event.position)) return;
    this.heard = event.position;
    this.host.deliver(event);
  }

  /** Notices what a broken network swallowed: the server counts too.
   * @param {{ seq: number } | undefined} place */
  beat(place) {
    if (this.asked !== null && Date.now() - this.askedAt > overdue) this.host.renew();
    else if (place && this.asked === null && this.status === "live" && place.seq > this.at) this.heal();
  }

  /** Resumes on the same socket; on another one, if that brought nothing. */
  heal() {
    if (this.healed === this.at) return this.host.renew();
    this.healed = this.at;
    this.join();
  }

  /** Forgets the state, which is void or was another user's, and asks for a new one.
   * @param {Position | null} heard what need not be delivered again; null: what is not in the new state */
  lose(heard) {
    this.fold = this.kept = null;
    this.heard = heard;
    this.host.tell("reset");
    this.join();
  }

  /** @param {Record<string, any>} error */
  refused({ code, detail, retryAfterMs }) {
    this.asked = null;
    if (code === "forbidden") return this.end("forbidden", detail);
    if (code === "banned") return this.end("thrown-out", detail);
    if (code === "invalid-position") return this.lose(null);
    if (code === "too-many-rooms" || String(code).startsWith("invalid-")) return this.end("protocol", detail);
    const pause = retryAfterMs ?? Math.min(retry.most, retry.first * 2 ** this.tries++);
    this.timer = setTimeout(() => this.join(), pause);
  }

  live() {
    this.tries = 0;
    this.move("live");
  }

  /** @param {Place} status @param {string} [reason] */
  end(status, reason) {
    this.asked = null;
    clearTimeout(this.timer);
    this.move(status, reason);
  }

  /** The socket is gone, and with it what was asked. */
  down() {
    this.asked = this.healed = null;
    clearTimeout(this.timer);
    if (this.status === "live") this.status = "joining";
  }

  /** @param {Place} status @param {string} [reason] */
  move(status, reason) {
    this.status = status;
    this.reason = reason;
    this.host.changed();
  }
}

/** Whether position a is before position b.
 * @param {Position} a @param {Position} b */
export function isEarlier(a, b) {
  const [ms = 0, n = 0] = a.split("-").map(Number);
  const [otherMs = 0, otherN = 0] = b.split("-").map(Number);
  return ms < otherMs || (ms === otherMs && n < otherN);
}

/** @param {Position | null} a @param {Position} b */
function earlier(a, b) {
  return a !== null && isEarlier(a, b) ? a : b;
}

/** @param {Position | null} a @param {Position} b */
function later(a, b) {
  return a !== null && isEarlier(b, a) ? a : b;
}
