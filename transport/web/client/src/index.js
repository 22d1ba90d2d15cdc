// @plugcast/client: the live state and events of a plugcast system.

export { Client } from "./client.js";
export { Fold } from "./fold.js";

/** @typedef {import("./events.js").Assignment} Assignment */
/** @typedef {import("./events.js").ClientEvents} ClientEvents */
/** @typedef {import("./events.js").Connection} Connection */
/** @typedef {import("./events.js").Device} Device */
/** @typedef {import("./events.js").DeviceView} DeviceView */
/** @typedef {import("./events.js").Equipment} Equipment */
/** @typedef {import("./events.js").EventData} EventData */
/** @typedef {import("./events.js").Handlers} Handlers */
/** @typedef {import("./events.js").LogEvent} LogEvent */
/** @typedef {import("./events.js").Options} Options */
/** @typedef {import("./events.js").Snapshot} Snapshot */
/** @typedef {import("./events.js").Status} Status */
/** @typedef {import("./events.js").StatusInfo} StatusInfo */
/** @typedef {import("./events.js").TokenSource} TokenSource */
