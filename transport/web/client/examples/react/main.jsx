import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { SocketProvider, useDevice, useEvent, useSocket } from "@plugcast/client/react";

// #server=http://127.0.0.1:8080&system=clinica-sol&token=…
const { server = location.origin, system, token } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function App() {
  return (
    <SocketProvider url={new URL("/ws", server).href} token={token} systemId={system}>
      <h1>Plugs of {system}</h1>
      <Status />
      <Plugs />
      <LastFault />
    </SocketProvider>
  );
}

function Status() {
  const { status, seconds, reason } = useSocket();
  return <p>Status: <output id="status">{status}{seconds ? `, next try in ${seconds} s` : ""}</output> {reason}</p>;
}

// Rendered again when a plug comes, not when one changes.
function Plugs() {
  const { deviceIds } = useSocket();
  return <ul id="plugs">{deviceIds.map((id) => <Plug key={id} id={id} />)}</ul>;
}

// Rendered again when this plug changes.
function Plug({ id }) {
  const { name, relayOn, powerW, equipment, stale } = useDevice(id);
  return (
    <li>
      {name ?? id}: {relayOn == null ? "not known" : relayOn ? "on" : "off"}, {powerW ?? "?"} W
      {equipment && `, feeds ${equipment.name ?? equipment.equipmentId}`}{stale && " (no news)"}{" "}
      <button onClick={() => switchRelay(id, !relayOn)}>{relayOn ? "Switch off" : "Switch on"}</button>
    </li>
  );
}

// Commands go over HTTP; what comes of them comes back as events.
async function switchRelay(id, on) {
  await fetch(new URL(`/api/v1/systems/${system}/devices/${id}/relay`, server), {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
    body: JSON.stringify({ on }),
  });
}

function LastFault() {
  const [fault, setFault] = useState("");
  useEvent("relay-switch-completed", ({ deviceId, outcome, error }) => setFault(outcome === "completed" ? "" : `${deviceId}: ${error ?? outcome}`));
  return fault && <p role="alert">{fault}</p>;
}

createRoot(document.getElementById("root")).render(<StrictMode><App /></StrictMode>);
