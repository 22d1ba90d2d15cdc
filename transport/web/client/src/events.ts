// The types of what travels: events, rows of the state, frames. No code in here.

/** Where in the log something stands, `<ms>-<n>`. It is the cursor to resume from. */
export type Position = string;

/** RFC 3339, UTC. */
export type Time = string;

/** What is known of a device. An absent field or null means not known, and never off. */
export interface Device {
  deviceId: string;
  online: boolean | null;
  relayOn: boolean | null;
  /** The switch of a device with several; 0 is the first. */
  channel?: number | null;
  powerW?: number | null;
  voltageV?: number | null;
  currentA?: number | null;
  frequencyHz?: number | null;
  powerFactor?: number | null;
  /** Lifetime total, which never goes down. */
  energyWh?: number | null;
  /** The device's own counter, which returns to 0 when it is reset. */
  counterWh?: number | null;
  /** `energyWh` rose by what was used since then, all at once: the counter stood still, or nobody heard it. */
  energySince?: Time | null;
  /** The part of `energyWh` that corrections by operators added. */
  energyOffsetWh?: number | null;
  /** The falls of the counter that may not have been resets: it may come back to where it was. */
  counterFalls?: { at: Time; counterWh: number; energyWh: number }[] | null;
  temperatureC?: number | null;
  /** Who switched it, in the device's words. */
  source?: string | null;
  errors?: string[] | null;
  /** On the device's own clock. */
  deviceTime?: Time | null;
  connectionId?: string | null;
  name?: string | null;
  attributes?: Record<string, unknown> | null;
  lastSeenAt?: Time | null;
  /** Why, while `online` is false. */
  offlineReason?: string;
  /** The deployment that its last update came from, over a bridge. Absent: this one. */
  origin?: string;
  updatedAt: Time;
  position: Position;
}

/** A device with what belongs to it. The same object until one of them changes. */
export interface DeviceView extends Device {
  /** Nothing new can be known, because its connection is stopped or down. Neither offline nor off. */
  stale: boolean;
  /** What the plug feeds. Only the id is known of equipment that is not registered. */
  equipment: (Partial<Equipment> & { equipmentId: string }) | null;
}

export interface Equipment {
  equipmentId: string;
  name: string;
  kind?: string;
  location?: string;
  attributes?: Record<string, unknown> | null;
  retired: boolean;
  updatedAt: Time;
  position: Position;
}

export interface Assignment {
  deviceId: string;
  equipmentId: string;
  assignedBy: string;
  assignedAt: Time;
  position: Position;
}

export interface Connection {
  connectionId: string;
  kind: "shelly-cloud" | "shelly-outbound";
  name?: string;
  /** By command. */
  stopped: boolean;
  state?: "connected" | "disconnected" | "refused";
  stateReason?: string;
  /** The deployment that it was created in. Absent: this one. */
  origin?: string;
  updatedAt: Time;
  position: Position;
}

/** The state of a system at a position, as the server sends it. */
export interface Snapshot {
  systemId: string;
  position: Position;
  seq: number;
  devices: Device[] | null;
  equipment: Equipment[] | null;
  assignments: Assignment[] | null;
  connections: Connection[] | null;
}

type Measured = Omit<Device, "deviceId" | "online" | "relayOn" | "lastSeenAt" | "offlineReason" | "origin" | "updatedAt" | "position">;

interface ConnectionCommand {
  connectionId: string;
  commandId: string;
  reason?: string;
}

/** The data of each event of the log, by its name. A type that is not in here may come all the same. */
export interface EventData {
  /** Absent: unchanged. null: not known. Neither means off. */
  "device-update": Measured & {
    deviceId: string;
    online?: boolean | null;
    relayOn?: boolean | null;
    /** The names of the fields that this event changed. */
    changed?: string[];
  };
  "device-offline-status": {
    deviceId: string;
    online: boolean;
    /** What was known when it was written; the state takes the relay from device updates alone. */
    relayOn?: boolean | null;
    lastSeenAt?: Time | null;
    reason: "heartbeat-missed" | "socket-closed" | "reported" | "back";
  };
  /** An operator set the lifetime total; it goes on from there. */
  "energy-corrected": { commandId: string; deviceId: string; energyWh: number; reason?: string };
  "smart-plug-assignment-updated": {
    deviceId: string;
    /** null: released. */
    equipmentId: string | null;
    previousEquipmentId: string | null;
    previousDeviceId: string | null;
  };
  "equipment-registered": {
    equipmentId: string;
    name: string;
    kind?: string;
    location?: string;
    attributes?: Record<string, unknown>;
  };
  "equipment-updated": {
    equipmentId: string;
    name?: string | null;
    kind?: string | null;
    location?: string | null;
    attributes?: Record<string, unknown> | null;
  };
  "equipment-retired": { equipmentId: string; reason?: string };
  "connection-created": { connectionId: string; kind: Connection["kind"]; name?: string };
  "connection-updated": { connectionId: string; commandId: string; name?: string | null; credential?: boolean };
  "connection-started": ConnectionCommand;
  "connection-stopped": ConnectionCommand;
  "connection-restarted": ConnectionCommand;
  "connection-deleted": ConnectionCommand;
  "connection-state-changed": { connectionId: string; state: "connected" | "disconnected" | "refused"; reason?: string };
  "relay-switch-requested": { commandId: string; deviceId: string; on: boolean; toggleAfterS?: number };
  "relay-switch-completed": {
    commandId: string;
    deviceId: string;
    outcome: "completed" | "failed" | "unknown";
    error?: string;
  };
  "disconnect-requested": {
    commandId: string;
    socketId?: string;
    connectionId?: string;
    targetSystemId?: string;
    subject?: string;
    role?: string;
    reason?: string;
    closeSockets: boolean;
    /** Also sockets in the rooms of other systems, and those of staff, are closed. */
    everyRoom?: boolean;
    reconnect: boolean;
    banUntil?: Time;
  };
  "disconnect-completed": { commandId: string; node: string; shellySockets: number; browserSockets: number };
  "history-exported": { after: Position; until: Position; events: number };
  undecodable: { reason: string; fields: Record<string, string> };
}

/** An event with its envelope. */
export interface Envelope<Name extends string = string, Data = unknown> {
  event: Name;
  position: Position;
  /** Counts the system's events 1, 2, 3, … without holes. */
  seq: number;
  id: string;
  systemId: string;
  time: Time;
  /** Who: a token's subject, or `shelly:<connectionId>`. */
  actor: string;
  correlationId?: string;
  causationId?: string;
  /** The deployment where it was first appended, for an event that came over a bridge. */
  origin?: string;
  /** Of the data's shape; 1 is the first. */
  version: number;
  data: Data;
  /** What the server left out before this one, because the client asked for that. */
  skipped?: { from: number; to: number };
}

/** Any event of the log that this version knows. */
export type LogEvent = { [Name in keyof EventData]: Envelope<Name, EventData[Name]> }[keyof EventData];

/**
 * What the UI shows of the connection.
 *
 * - `idle`: not begun, or closed
 * - `connecting`
 * - `live`: everything that happened is in the state
 * - `waiting`: disconnected; tries again in `seconds`
 * - `offline`: the same, and the browser says that there is no network
 * - `unauthorized`: no token, or one that is refused; it ends here
 * - `forbidden`: the token is not for the system; it ends here
 * - `thrown-out`: somebody closed this connection on purpose; it ends here
 * - `protocol`: the server does not understand this client; it ends here
 */
export type Status =
  | "idle" | "connecting" | "live" | "waiting" | "offline" | "unauthorized" | "forbidden" | "thrown-out" | "protocol";

/** The status, with what belongs to it. */
export interface StatusInfo {
  readonly status: Status;
  /** Until the next try, of `waiting` and `offline`; as it was when the waiting began. */
  readonly seconds?: number;
  /** In words, if the server gave any, or what may be wrong when it cannot be reached. */
  readonly reason?: string;
}

/** What a client tells beside the log's events. */
export interface ClientEvents {
  status: StatusInfo;
  /** There is a new state as a whole: the first, or one after what cannot be resumed. */
  state: { systemId: string };
  /** Events were missed, or are void: the log does not have the position any more. The state is right again. */
  reset: { systemId: string };
  "forced-disconnect": { reason: string; commandId: string; reconnect: boolean };
}

type LogHandlers = { [Name in keyof EventData]: (data: EventData[Name], meta: Envelope<Name, EventData[Name]>) => void };
type ClientHandlers = { [Name in keyof ClientEvents]: (data: ClientEvents[Name]) => void };

/** The handlers of {@link Client.on}, by name. `*` hears every event of the log. */
export interface Handlers extends LogHandlers, ClientHandlers {
  "*": (data: unknown, meta: LogEvent) => void;
}

/** A string, or a function that gives one: it is asked before the token expires, and after one was refused. */
export type TokenSource = string | ((why: { refused: boolean }) => string | null | Promise<string | null>);

export interface Options {
  /** `wss://…/ws`; http(s) and paths of the page's own host are understood. Default `/ws`. */
  url?: string;
  token: TokenSource;
  /** One system, or several over one socket. */
  systemId: string | readonly string[];
  /** Let the server leave out updates of a device that a newer one replaces, while this reader is behind. */
  conflate?: boolean;
  /** Keeps the position across reloads. Default `sessionStorage`; null keeps nothing. */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /**
   * The user of the token, for hooks that get the token from a function: another user gets another connection.
   * Default: the `sub` of a token that is a string.
   */
  user?: string;
  /** Tells clients of the same system in one page apart, in the storage. */
  name?: string;
  /** Where there is none, such as Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocket;
  /** For tests: 0 to 1. */
  random?: () => number;
}

/** A frame of the server that is not an event of the log. */
export interface Frame {
  event: string;
  id?: number;
  systemId?: string;
  data: Record<string, any>;
}
