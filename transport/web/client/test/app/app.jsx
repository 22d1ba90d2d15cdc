// A page that uses the hooks as an application does, and lets a test look into it.
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { flushSync } from "react-dom";
import { SocketProvider, useDevice, useEvent, useSocket } from "../../src/react/index.js";

const { url, token, system } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const options = { url, token: () => token, systemId: system };

// What was counted of the page's own means, to see what is left of them.
const count = { sockets: 0, timers: new Set(), renders: {} };
const { WebSocket, setTimeout, clearTimeout } = window;
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    count.sockets++;
  }
};
window.setTimeout = (run, ms, ...args) => {
  const id = setTimeout(() => { count.timers.delete(id); run(...args); }, ms);
  count.timers.add(id);
  return id;
};
window.clearTimeout = (id) => { count.timers.delete(id); clearTimeout(id); };

// Events that were heard are kept as a page would keep what it has done about
// them: for the tab, whatever happens to the page.
function Log() {
  useEvent("*", (_, { seq }) => sessionStorage.setItem("heard", (sessionStorage.getItem("heard") ?? "") + seq + ","));
  return null;
}

function Row({ id }) {
  const device = useDevice(id);
  count.renders[id] = (count.renders[id] ?? 0) + 1;
  return <li id={id}>{String(device.relayOn)} {device.powerW} {device.equipment?.equipmentId ?? "-"}</li>;
}

let client;
function Page() {
  const socket = useSocket();
  ({ client } = socket);
  count.renders.page = (count.renders.page ?? 0) + 1;
  return (
    <>
      <p id="status">{socket.status}</p>
      <ul>{socket.deviceIds.map((id) => <Row key={id} id={id} />)}</ul>
    </>
  );
}

// Two of them: they share one socket.
createRoot(document.getElementById("root")).render(
  <StrictMode>
    <SocketProvider {...options}><Page /><Log /></SocketProvider>
    <SocketProvider {...options}><Second /></SocketProvider>
  </StrictMode>,
);

function Second() {
  const { devices } = useSocket();
  return <p id="second">{devices.size}</p>;
}

// A component that comes and goes, with a socket of its own.
function Guest({ name, seen }) {
  const { status, devices } = useSocket({ ...options, name, storage: null });
  const [, set] = useState(0);
  useEvent("*", () => set((n) => n + 1), { socket: useSocket({ ...options, name, storage: null }) });
  if (status === "live" && devices.size > 0) seen();
  return null;
}

async function comeAndGo(name) {
  const place = document.createElement("div");
  const root = createRoot(place);
  await new Promise((seen) => flushSync(() => root.render(<StrictMode><Guest name={name} seen={seen} /></StrictMode>)));
  root.unmount();
}

// A component whose user changes. It tells what it shows, at each render.
function Whose({ who, shows }) {
  const { status, devices } = useSocket({ ...options, ...who, name: "whose", storage: null });
  shows(status, devices.size);
  return null;
}

const sorted = (rows) => [...rows.keys()].sort().map((key) => rows.get(key));

window.test = {
  count,
  state() {
    const { position, seq, devices, equipment, assignments, connections } = client.state();
    return JSON.stringify({
      position, seq, devices: sorted(devices), equipment: sorted(equipment), assignments: sorted(assignments), connections: sorted(connections),
    });
  },
  // Guests that come and go, some at a time; each opens a socket.
  async guests(n, prefix) {
    let next = 0;
    await Promise.all(Array.from({ length: 8 }, async () => {
      while (next < n) await comeAndGo(prefix + next++);
    }));
  },
  // What a component shows to a second user who may not see what the first one saw:
  // how many devices, at each render until it knows that.
  async changeUser(first, second, asFunction) {
    const root = createRoot(document.createElement("div"));
    const render = (token, user, isDone) => new Promise((done) => {
      const shown = [];
      const shows = (status, n) => shown.push(n) && isDone(status, n) && done(shown);
      const who = asFunction ? { user, token: () => token } : { token };
      flushSync(() => root.render(<StrictMode><Whose who={who} shows={shows} /></StrictMode>));
    });
    await render(first, "ana", (_, n) => n > 0);
    const shown = await render(second, "eva", (status) => status === "forbidden");
    root.unmount();
    return shown.every((n) => n === 0) ? "nothing" : JSON.stringify(shown);
  },
  // Guests that come and go too fast for a socket to be closed between them.
  hasty(n) {
    const root = createRoot(document.createElement("div"));
    for (let i = 0; i < n; i++) {
      flushSync(() => root.render(<StrictMode><Guest name="hasty" seen={() => {}} /></StrictMode>));
      flushSync(() => root.render(null));
    }
    root.unmount();
  },
};
