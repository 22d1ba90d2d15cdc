// What a program in TypeScript may write, and what it may not.
import { Client, type Device, type LogEvent, type Status } from "@plugcast/client";
import { SocketProvider, useDevice, useEvent, useSelector, useSocket } from "@plugcast/client/react";

const client = new Client({ url: "/ws", token: async ({ refused }) => (refused ? null : "t"), systemId: ["a", "b"], conflate: true });
const off: () => void = client.on("device-update", (data, meta) => {
  const on: boolean | null | undefined = data.relayOn;
  const seq: number = meta.seq;
  const name: "device-update" = meta.event;
  // @ts-expect-error there is no such field
  data.relay;
  return void [on, seq, name];
});
client.on("smart-plug-assignment-updated", ({ equipmentId }) => void (equipmentId satisfies string | null));
client.on("*", (_, event: LogEvent) => {
  if (event.event === "relay-switch-completed") event.data.outcome satisfies "completed" | "failed" | "unknown";
});
client.on("status", ({ status, seconds }) => void [status satisfies Status, seconds satisfies number | undefined]);
// @ts-expect-error there is no such event
client.on("device-updated", () => {});
// @ts-expect-error a token is needed
new Client({ systemId: "s" });
// @ts-expect-error what is handed out does not change
client.devices.delete("d1");
const device: Device | undefined = client.devices.get("d1");
client.subscribe(() => {});
client.setToken("t");
off();

function Row({ id }: { id: string }) {
  const plug = useDevice(id);
  useEvent("device-offline-status", ({ reason }) => void reason.length);
  const count: number = useSelector((c) => c.devices.size);
  return <li>{plug?.name} {plug?.equipment?.name} {String(plug?.stale)} {count}</li>;
}

export function App() {
  const socket = useSocket({ token: "t", systemId: "s" });
  return (
    <SocketProvider token="t" systemId="s" url="/ws">
      <p>{socket.status} {device?.powerW}</p>
      {socket.deviceIds.map((id) => <Row key={id} id={id} />)}
    </SocketProvider>
  );
}
