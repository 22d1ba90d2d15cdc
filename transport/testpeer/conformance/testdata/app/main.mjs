// Runs the application under Node: node main.mjs URL TOKEN SYSTEM. Each report is a
// line of JSON.
import { io } from "socket.io-client";
import { start } from "./app.js";

const [url, token, system] = process.argv.slice(2);
start(io, { url, token, system }, (line) => console.log(JSON.stringify(line)));
process.on("SIGINT", () => process.exit(0));
