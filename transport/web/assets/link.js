// The link to the server: one WebSocket after the other, each resuming where the
// one before ended, so that the state behind it misses nothing. No page in here.

import { State } from "./state.js";

const silence = 45_000; // ms without any frame after which a socket is given up; heartbeats come every 15 s
const steady = 10_000; // ms after which a connection counts as good, and the back-off begins anew
const backoff = { first: 500, most: 30_000 }; // ms

// What each close code means, when it means more than: try again.
const final = { 1009: "protocol", 4400: "protocol", 4401: "unauthorized", 4403: "forbidden" };

// Link keeps a system's state fresh. It calls
//   onStatus(status, seconds): connecting, live, waiting (with the seconds until the next try), or an end:
//     unauthorized, forbidden, thrown-out, protocol;
//   onState(state): there is a new state as a whole;
//   onChange(state, deviceIds, event): one event changed these devices.
export class Link {
  constructor({ url, token, system, onStatus, onState, onChange, Socket = WebSocket, random = Math.random }) {
    Object.assign(this, { url, token, system, onStatus, onState, onChange, Socket, random });
    this.state = null;
    this.tries = 0;
    this.ended = false;
  }

  open() {
    clearTimeout(this.retry);
    this.mayReturn = false; // after being thrown out, unless it is said
    this.onStatus("connecting");
    const socket = new this.Socket(this.url, ["plugcast.v1", "bearer." + this.token]);
    this.socket = socket;
    socket.onopen = () => this.join();
    socket.onmessage = (message) => {
      if (socket === this.socket) this.read(message.data);
    };
    socket.onclose = (close) => {
      if (socket === this.socket) this.closed(close);
    };
    this.listen();
  }

  // join asks for everything once, and from then on for what came since.
  join() {
    const data = { systemId: this.system };
    if (this.state) data.after = this.state.position;
    else data.snapshot = true;
    this.socket.send(JSON.stringify({ event: "join-system", id: 1, data }));
  }

  read(text) {
    this.listen();
    const frames = JSON.parse(text);
    for (const frame of Array.isArray(frames) ? frames : [frames]) this.take(frame);
  }

  take(frame) {
    switch (frame.event) {
      case "connection-status":
      case "pong":
        return;
      case "joined":
        return this.joined(frame.data);
      case "snapshot":
        this.state = new State(frame.data);
        this.live();
        return this.onState(this.state);
      case "heartbeat":
        return this.compare(frame.data.rooms?.[this.system]);
      case "forced-disconnect":
        this.mayReturn = Boolean(frame.data.reconnect);
        return;
      case "error":
        return this.refused(frame.data);
      default:
        if (frame.systemId === this.system && this.state) this.fold(frame);
    }
  }

  joined(data) {
    if (!this.state) return; // the snapshot follows
    if (data.recovered === false) return this.restart(); // the log does not have what came since
    this.live();
  }

  fold(event) {
    if (event.skipped) this.state.skip(event.skipped);
    const changed = this.state.apply(event);
    if (changed === null) return this.renew();
    if (changed.length > 0) this.onChange(this.state, changed, event);
  }

  // compare notices what a broken network swallowed: the server counts too.
  compare(room) {
    if (room && this.state && room.seq > this.state.seq) this.renew();
  }

  refused(error) {
    if (error.code === "forbidden") this.end("forbidden");
    else if (error.code === "fenced") this.end("thrown-out");
    else if (error.code === "token-expired" || error.code === "token-invalid") this.end("unauthorized");
    else if (error.code !== "rate-limited") this.renew();
  }

  live() {
    this.onStatus("live");
    clearTimeout(this.settled);
    this.settled = setTimeout(() => (this.tries = 0), steady);
  }

  // listen gives a socket up that went silent: a phone changes networks without
  // saying so.
  listen() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.renew(), silence);
  }

  // renew resumes on a new socket.
  renew() {
    const old = this.socket;
    this.socket = null;
    old?.close(1000);
    this.later();
  }

  // restart forgets the state and asks for everything.
  restart() {
    this.state = null;
    this.renew();
  }

  closed(close) {
    if (close.code === 4409 && !this.mayReturn) return this.end("thrown-out");
    if (final[close.code]) return this.end(final[close.code]);
    this.later();
  }

  // later tries again after a pause that grows, and that differs from the others'
  // who lost the same server.
  later() {
    if (this.ended) return;
    this.stopTimers();
    const most = Math.min(backoff.most, backoff.first * 2 ** this.tries++);
    const pause = most / 2 + (this.random() * most) / 2;
    this.onStatus("waiting", Math.ceil(pause / 1000));
    this.retry = setTimeout(() => this.open(), pause);
  }

  // now skips the pause: the network is back, or somebody looks at the page.
  now() {
    if (this.ended || (this.socket && this.socket.readyState <= 1)) return;
    this.open();
  }

  end(reason) {
    this.close();
    this.onStatus(reason);
  }

  // close ends the link for good.
  close() {
    const old = this.socket;
    this.ended = true;
    this.socket = null;
    this.stopTimers();
    old?.close(1000);
  }

  stopTimers() {
    for (const timer of [this.retry, this.watch, this.settled]) clearTimeout(timer);
  }
}
