// The Socket.IO project's own server, wired as the package's doc says. It takes
// its settings from the environment and prints its address.
import { createServer } from "node:http";
import { Server as Engine } from "engine.io";
import { Server } from "socket.io";

const ms = (name) => Number(process.env[name]);
const settings = {
  pingInterval: ms("PING_INTERVAL_MS"),
  pingTimeout: ms("PING_TIMEOUT_MS"),
  upgradeTimeout: ms("UPGRADE_TIMEOUT_MS"),
  maxHttpBufferSize: ms("MAX_PAYLOAD"),
  cors: { origin: process.env.ORIGIN || true, credentials: true },
};

const http = createServer((_, response) => response.writeHead(404).end());
const engine = new Engine(settings);
engine.attach(http, { path: "/engine.io/", destroyUpgrade: false });
engine.on("connection", (socket) => socket.on("data", (data) => socket.send(data)));

const io = new Server(http, { ...settings, connectTimeout: ms("CONNECT_TIMEOUT_MS"), destroyUpgrade: false });
for (const name of ["/", "/custom"]) {
  io.of(name).on("connection", (socket) => {
    socket.emit("auth", socket.handshake.auth);
    socket.on("message", (...args) => socket.emit("message-back", ...args));
    socket.on("message-with-ack", (...args) => args.pop()(...args));
    socket.on("join-system", (system) => {
      for (const seq of [1, 2, 3]) socket.emit("device-update", { deviceId: system }, { seq }, `${seq}-0`);
    });
    socket.on("ask", (...args) => socket.emit("question", ...args, (...answer) => socket.emit("answered", ...answer)));
  });
}
http.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${http.address().port}`));
process.on("SIGINT", () => process.exit(0));
