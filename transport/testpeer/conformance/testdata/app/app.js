// An application as somebody wrote it for the old system, but for report: it gets
// each line about what happens. Nothing in it knows of positions or recovery.
export function start(io, { url, token, system }, report) {
  const socket = io(url, { auth: { token }, reconnectionDelay: 50, reconnectionDelayMax: 500 });
  socket.io.on("open", () => {
    report({ kind: "open", transport: socket.io.engine.transport.name });
    socket.io.engine.once("upgrade", (transport) => report({ kind: "upgrade", transport: transport.name }));
  });
  socket.on("connect", () => report({ kind: "connect" }));
  socket.on("connect", () => socket.emit("join-system", system));
  socket.on("disconnect", (reason) => report({ kind: "disconnect", reason }));
  socket.on("connect_error", (error) => report({ kind: "connect_error", reason: error.message }));
  for (const event of ["device-update", "device-offline-status", "smart-plug-assignment-updated"]) {
    socket.on(event, (data, meta, position) => report({ kind: "event", event, data, seq: meta?.seq, position }));
  }
}
