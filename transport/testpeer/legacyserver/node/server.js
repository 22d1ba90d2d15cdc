// The system that plugcast replaces, as its tests need it: rooms by systemId, the
// events of the old front end, and a door for the tests to make things happen.
//
// Environment: PORT (0 is any), RECORD (a file that gets what clients emit, one JSON
// line each: it outlives the process), TOKEN (what auth.token must be, if set),
// RECOVERY=1 (connection state recovery), ACK=1 (acknowledges), ECHO=room (sends
// what it gets to the whole room, its sender too), ECHO=strip (the same, and knows
// nothing of members that it does not know).
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { Server } from "socket.io";

const { PORT = "0", RECORD, TOKEN, RECOVERY, ACK, ECHO } = process.env;
const forwarded = ["device-update", "device-offline-status", "smart-plug-assignment-updated"];

const http = createServer(async (request, response) => {
  let text = "";
  for await (const chunk of request) text += chunk;
  const body = text === "" ? {} : JSON.parse(text);
  const answer = (value) => response.end(JSON.stringify(value));
  switch (request.url) {
    case "/test/emit": // [{room, event, args}, …], in order
      for (const { room, event, args } of body) io.to(room).emit(event, ...args);
      return answer({ ok: true });
    case "/test/binary":
      io.to(body.room).emit("device-update", { deviceId: "d-binary", image: Buffer.from([1, 2, 3]) });
      return answer({ ok: true });
    case "/test/ask": { // waits for the acknowledgement of every member
      const replies = await io.to(body.room).timeout(10000).emitWithAck(body.event, ...body.args);
      return answer({ replies: replies.length });
    }
    case "/test/drop": // cuts the transports of a room's members, as a network does
      for (const socket of io.sockets.sockets.values()) if (socket.rooms.has(body.room)) socket.conn.close();
      return answer({ ok: true });
    case "/test/kick": // throws them out
      io.in(body.room).disconnectSockets(true);
      return answer({ ok: true });
    case "/test/members":
      return answer({ members: io.sockets.adapter.rooms.get(body.room)?.size ?? 0 });
    default:
      response.statusCode = 404;
      return answer({ ok: false });
  }
});

const io = new Server(http, {
  pingInterval: 500,
  pingTimeout: 1000,
  ...(RECOVERY ? { connectionStateRecovery: { maxDisconnectionDuration: 120000, skipMiddlewares: false } } : {}),
});

io.use((socket, next) => {
  if (TOKEN && socket.handshake.auth.token !== TOKEN) return next(new Error("invalid token"));
  next();
});

io.on("connection", (socket) => {
  socket.emit("connection-status", { connected: true, socketId: socket.id });
  socket.on("join-system", (what, done) => {
    const room = typeof what === "string" ? what : what?.systemId;
    if (typeof room !== "string") return;
    socket.join(room);
    if (typeof done === "function") done({ ok: true });
  });
  for (const event of forwarded) {
    socket.on(event, (payload, done) => {
      if (RECORD) appendFileSync(RECORD, JSON.stringify({ event, payload }) + "\n");
      if (ECHO) {
        const sent = { ...payload };
        if (ECHO === "strip") delete sent.plugcast;
        for (const room of socket.rooms) if (room !== socket.id) io.to(room).emit(event, sent);
      }
      if (ACK && typeof done === "function") done({ ok: true });
    });
  }
});

http.listen(Number(PORT), "127.0.0.1", () => console.log(`listening ${http.address().port}`));
process.on("SIGINT", () => process.exit(0));
