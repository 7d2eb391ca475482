// Socket.IO with the adapter for Redis Streams and recovery, as its documentation has it.
//
//     node socketio.mjs PORT REDIS_SOCKET

import { createServer } from "node:http";

import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, path] = process.argv.slice(2);
const redis = createClient({ socket: { path, tls: false } });
await redis.connect();

const http = createServer((_request, response) => response.end("ready"));
const io = new Server(http, {
  adapter: createAdapter(redis),
  connectionStateRecovery: {},
  transports: ["websocket"],
  perMessageDeflate: false,
});

io.on("connection", (socket) => {
  socket.join(`user:${socket.handshake.query.user}`);
  socket.on("join", (group) => {
    socket.join(`group:${group}`);
    socket.emit("joined");
  });
  socket.on("send", (to, body, answer) => {
    socket.to(to).emit("message", body);
    answer();
  });
});

http.listen(Number(port), "127.0.0.1", 4096); // a backlog for two thousand that come at once
