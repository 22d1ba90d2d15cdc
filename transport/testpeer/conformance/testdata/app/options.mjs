// Connects with options that applications use: node options.mjs URL OPTIONS SYSTEM.
// It joins, and after its first event it emits binary data, which no event takes.
// Each report is a line of JSON.
import { io } from "socket.io-client";

const [url, options, system] = process.argv.slice(2);
const report = (line) => console.log(JSON.stringify(line));
const socket = io(url, { reconnection: false, ...JSON.parse(options) });
socket.on("connect", () => {
  report({ kind: "connect", transport: socket.io.engine.transport.name });
  socket.emit("join-system", system);
});
socket.on("connect_error", (error) => report({ kind: "connect_error", reason: error.message }));
socket.on("device-update", (data, meta, position) => {
  report({ kind: "event", event: "device-update", data, seq: meta.seq, position });
  socket.emit("join-system", Buffer.from([1, 2, 3]));
});
socket.on("error", (data) => report({ kind: "event", event: "error", data }));
socket.on("disconnect", (reason) => report({ kind: "disconnect", reason }));
process.on("SIGINT", () => process.exit(0));
