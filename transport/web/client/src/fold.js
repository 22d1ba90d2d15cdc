// The state of one system, folded from events by the same rules as
// domain.State.Apply on the server: an absent field is unchanged, null is not
// known, and neither ever means off. No page and no network in here.

/**
 * @import { Assignment, Connection, Device, DeviceView, Envelope, Equipment, Position, Snapshot } from "./events.js"
 * @typedef {Envelope<string, any>} Event
 * @typedef {{ device: Device, stale: boolean, equipment: DeviceView["equipment"], view: DeviceView }} Seen
 */

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/; // Date.parse takes much else

/** @param {unknown} v */
const isText = (v) => typeof v === "string";
/** @param {unknown} v */
const isNumber = (v) => typeof v === "number";
/** @param {unknown} v */
const isFlag = (v) => typeof v === "boolean";
/** @param {unknown} v */
const isTime = (v) => isText(v) && rfc3339.test(/** @type {string} */ (v)) && !Number.isNaN(Date.parse(/** @type {string} */ (v)));
/** @param {unknown} v */
const isList = (v) => Array.isArray(v) && v.every(isText);
/** @param {unknown} v */
const isFalls = (v) => Array.isArray(v) && v.every((f) => typeof f === "object" && f !== null && (f.at == null || isTime(f.at))
  && (f.counterWh == null || isNumber(f.counterWh)) && (f.energyWh == null || isNumber(f.energyWh)));
const isAnything = () => true;

/** The fields that an update merges, with what they may be beside null.
 * @type {Record<string, (v: unknown) => boolean>} */
const measured = {
  online: isFlag, relayOn: isFlag, channel: Number.isInteger, powerW: isNumber, voltageV: isNumber, currentA: isNumber,
  frequencyHz: isNumber, powerFactor: isNumber, energyWh: isNumber, counterWh: isNumber, temperatureC: isNumber,
  energySince: isTime, energyOffsetWh: isNumber, counterFalls: isFalls, source: isText, errors: isList, deviceTime: isTime,
  connectionId: isText, name: isText, attributes: isAnything,
};

/** The collections of a state, by the names that they have in a snapshot. */
const keys = /** @type {const} */ ({
  devices: "deviceId", equipment: "equipmentId", assignments: "deviceId", connections: "connectionId",
});

/** The state of a system. What it hands out never changes: a change makes new rows, and new maps. */
export class Fold {
  /** @param {Snapshot} snapshot */
  constructor(snapshot) {
    this.systemId = snapshot.systemId;
    /** @type {Position} the last event folded in */
    this.position = snapshot.position;
    this.seq = snapshot.seq;
    this.maps = {
      /** @type {Map<string, Device>} */ devices: index(snapshot.devices, keys.devices),
      /** @type {Map<string, Equipment>} */ equipment: index(snapshot.equipment, keys.equipment),
      /** @type {Map<string, Assignment>} */ assignments: index(snapshot.assignments, keys.assignments),
      /** @type {Map<string, Connection>} */ connections: index(snapshot.connections, keys.connections),
    };
    /** @type {Set<string>} maps that somebody may hold: they are copied before the next change */
    this.held = new Set();
    /** @type {Map<string, Seen>} */
    this.views = new Map();
    /** @type {readonly string[] | null} */
    this.sorted = null;
  }

  /** @returns {ReadonlyMap<string, Device>} */
  get devices() { return this.hold("devices"); }
  /** @returns {ReadonlyMap<string, Equipment>} */
  get equipment() { return this.hold("equipment"); }
  /** @returns {ReadonlyMap<string, Assignment>} by device */
  get assignments() { return this.hold("assignments"); }
  /** @returns {ReadonlyMap<string, Connection>} */
  get connections() { return this.hold("connections"); }

  /** The ids of all devices, sorted; the same list until there is another device. */
  get deviceIds() {
    return (this.sorted ??= Object.freeze([...this.maps.devices.keys()].sort()));
  }

  /**
   * A device with what belongs to it: the same object until one of them changes.
   * @param {string} deviceId
   * @returns {DeviceView | undefined}
   */
  device(deviceId) {
    const device = this.maps.devices.get(deviceId);
    if (!device) return undefined;
    const stale = this.isStale(device);
    const equipment = this.equipmentOf(deviceId);
    const seen = this.views.get(deviceId);
    if (seen && seen.device === device && seen.stale === stale && same(seen.equipment, equipment)) return seen.view;
    const view = Object.freeze({ ...device, stale, equipment });
    this.views.set(deviceId, { device, stale, equipment, view });
    return view;
  }

  /** What a plug feeds, or null.
   * @param {string} deviceId */
  equipmentOf(deviceId) {
    const assignment = this.maps.assignments.get(deviceId);
    if (!assignment) return null;
    const { equipmentId } = assignment;
    return this.maps.equipment.get(equipmentId) ?? { equipmentId };
  }

  /** Whether nothing new can be known of a device, because the connection that it is
   * behind is stopped or down. That says nothing about the device.
   * @param {Device} device */
  isStale(device) {
    const c = device.connectionId && this.maps.connections.get(device.connectionId);
    return Boolean(c && (c.stopped || c.state === "disconnected" || c.state === "refused"));
  }

  /**
   * Folds one event in. It answers with the ids of the devices that look different
   * now, or with null when events are missing before this one. An event that was
   * folded already changes nothing, nor does one that this version does not know.
   * @param {Event} event
   * @returns {string[] | null}
   */
  apply(event) {
    if (event.seq <= this.seq) return [];
    if ((event.skipped?.from ?? event.seq) > this.seq + 1) return null;
    this.seq = event.seq;
    this.position = event.position;
    const kind = Object.hasOwn(kinds, event.event) ? kinds[event.event] : undefined;
    if (!kind || event.version !== 1 || !fits(event.data, kind)) return [];
    return kind.fold(this, event, event.data);
  }

  /**
   * @template {keyof typeof keys} Name
   * @param {Name} name
   */
  hold(name) {
    this.held.add(name);
    return this.maps[name];
  }

  /**
   * The map to change: a new one, if somebody may hold the old one.
   * @template {keyof typeof keys} Name
   * @param {Name} name
   * @returns {Fold["maps"][Name]}
   */
  change(name) {
    if (this.held.delete(name)) this.maps[name] = /** @type {any} */ (new Map(/** @type {any} */ (this.maps[name])));
    return this.maps[name];
  }
}

/**
 * @typedef {{
 *   fold: (state: Fold, event: Event, data: any) => string[],
 *   id?: [name: string, form: RegExp],
 *   fields?: Record<string, (v: unknown) => boolean>,
 * }} Kind how an event is folded; the id that its row needs; the fields that are looked at
 */

const plainId = /^(?!\.\.?$)[\w.-]{1,64}$/;
const deviceId = /^(?!\.\.?$)[\w.:-]{1,128}$/;
const text = { name: isText, kind: isText, location: isText };
const command = { connectionId: isText, commandId: isText, reason: isText };

/** @type {Record<string, Kind>} */
const kinds = {
  "device-update": {
    id: ["deviceId", deviceId], fields: { ...measured, changed: isList },
    fold(state, event, data) {
      const known = state.maps.devices.get(data.deviceId);
      const ordered = !data.deviceTime || orders(data.deviceTime, event);
      if (ordered && data.deviceTime && known?.deviceTime && isEarlier(data.deviceTime, known.deviceTime)) {
        return []; // older than what is known: recorded, not folded
      }
      /** @type {any} */
      const device = known ? { ...known } : { deviceId: data.deviceId, online: null, relayOn: null };
      for (const field in measured) {
        if (!(field in data) || field === "energyOffsetWh" || (field === "deviceTime" && !ordered)) continue;
        device[field] = data[field];
      }
      if (data.energyWh != null && device.energyOffsetWh != null) { // of an update that may not know of a correction
        device.energyWh = roundEnergy(data.energyWh + device.energyOffsetWh - (data.energyOffsetWh ?? 0));
      }
      if (data.online !== false) device.lastSeenAt = event.time;
      if (device.online !== false) delete device.offlineReason;
      if (event.origin) device.origin = event.origin;
      else delete device.origin;
      return touch(state, event, device);
    },
  },

  "device-offline-status": {
    id: ["deviceId", deviceId], fields: { online: isFlag, relayOn: isFlag, lastSeenAt: isTime, reason: isText },
    fold(state, event, data) {
      const known = state.maps.devices.get(data.deviceId) ?? { deviceId: data.deviceId, relayOn: null };
      /** @type {any} */
      const device = { ...known, online: Boolean(data.online) };
      if ("lastSeenAt" in data) device.lastSeenAt = data.lastSeenAt;
      device.offlineReason = data.reason;
      if (device.online) delete device.offlineReason;
      return touch(state, event, device);
    },
  },

  "energy-corrected": {
    id: ["deviceId", deviceId], fields: { energyWh: isNumber, commandId: isText, reason: isText },
    fold(state, event, data) {
      const known = state.maps.devices.get(data.deviceId);
      if (!known) return [];
      const energyWh = data.energyWh ?? 0;
      const energyOffsetWh = roundEnergy((known.energyOffsetWh ?? 0) + energyWh - (known.energyWh ?? 0));
      return touch(state, event, { ...known, energyWh, energyOffsetWh });
    },
  },

  "smart-plug-assignment-updated": {
    id: ["deviceId", deviceId],
    fields: { equipmentId: (v) => isText(v) && plainId.test(/** @type {string} */ (v)), previousEquipmentId: isText, previousDeviceId: isText },
    fold(state, event, data) {
      const assignments = state.change("assignments");
      const changed = [data.deviceId];
      assignments.delete(data.deviceId);
      if (data.equipmentId == null) return changed;
      for (const holder of holders(state, data.equipmentId)) {
        assignments.delete(holder);
        changed.push(holder);
      }
      assignments.set(data.deviceId, {
        deviceId: data.deviceId, equipmentId: data.equipmentId,
        assignedBy: event.actor, assignedAt: event.time, position: event.position,
      });
      return changed;
    },
  },

  "equipment-registered": {
    id: ["equipmentId", plainId], fields: text,
    fold: (state, event, { equipmentId, name, kind, location, attributes }) =>
      furnish(state, event, { equipmentId, name, kind, location, attributes, retired: false }),
  },
  "equipment-updated": {
    fields: { equipmentId: isText, ...text },
    fold(state, event, data) {
      const known = state.maps.equipment.get(data.equipmentId);
      if (!known) return [];
      /** @type {any} */
      const equipment = { ...known };
      for (const field in text) {
        if (field in data) equipment[field] = data[field] ?? "";
      }
      if ("attributes" in data) equipment.attributes = data.attributes;
      return furnish(state, event, equipment);
    },
  },
  "equipment-retired": {
    fields: { equipmentId: isText, reason: isText },
    fold(state, event, data) {
      const known = state.maps.equipment.get(data.equipmentId);
      return known ? furnish(state, event, { ...known, retired: true }) : [];
    },
  },

  "connection-created": {
    id: ["connectionId", plainId], fields: { kind: isText, name: isText },
    fold: (state, event, { connectionId, kind, name }) =>
      connect(state, event, { connectionId, kind, name, stopped: false, ...(event.origin && { origin: event.origin }) }),
  },
  "connection-updated": change({ name: isText, reason: isAnything, credential: isFlag }, (data) => ("name" in data ? { name: data.name ?? "" } : {})),
  "connection-started": change({}, () => ({ stopped: false })),
  "connection-stopped": change({}, () => ({ stopped: true })),
  "connection-restarted": change({}, () => ({ stopped: false })),
  "connection-state-changed": change({ state: isText }, (data) => ({ state: data.state, stateReason: data.reason })),
  "connection-deleted": {
    fields: command,
    fold(state, _, data) {
      state.change("connections").delete(data.connectionId);
      return behind(state, data.connectionId);
    },
  },
};

/**
 * An event that changes a connection that is known.
 * @param {Kind["fields"]} fields beside those of a command
 * @param {(data: any) => Partial<Connection>} changes
 * @returns {Kind}
 */
function change(fields, changes) {
  return {
    fields: { ...command, ...fields },
    fold(state, event, data) {
      const known = state.maps.connections.get(data.connectionId);
      return known ? connect(state, event, { ...known, ...changes(data) }) : [];
    },
  };
}

/**
 * Whether data has the shape that its event has to have. What has not is
 * skipped as a whole, as on the server.
 * @param {any} data
 * @param {Kind} kind
 */
function fits(data, kind) {
  if (typeof data !== "object" || data === null) return false;
  if (kind.id && !(isText(data[kind.id[0]]) && kind.id[1].test(data[kind.id[0]]))) return false;
  return Object.entries(kind.fields ?? {}).every(([name, is]) => data[name] == null || is(data[name]));
}

/** @param {Fold} state @param {Event} event @param {Device} device */
function touch(state, event, device) {
  device.updatedAt = event.time;
  device.position = event.position;
  const devices = state.change("devices");
  if (!devices.has(device.deviceId)) state.sorted = null;
  devices.set(device.deviceId, Object.freeze(device));
  return [device.deviceId];
}

/** @param {Fold} state @param {Event} event @param {Omit<Equipment, "updatedAt" | "position">} equipment */
function furnish(state, event, equipment) {
  state.change("equipment").set(equipment.equipmentId, { ...equipment, updatedAt: event.time, position: event.position });
  return holders(state, equipment.equipmentId);
}

/** The plugs that feed a piece of equipment: one at most.
 * @param {Fold} state @param {string} equipmentId */
function holders(state, equipmentId) {
  return [...state.maps.assignments.values()].filter((a) => a.equipmentId === equipmentId).map((a) => a.deviceId);
}

/** @param {Fold} state @param {Event} event @param {Omit<Connection, "updatedAt" | "position">} connection */
function connect(state, event, connection) {
  state.change("connections").set(connection.connectionId, { ...connection, updatedAt: event.time, position: event.position });
  return behind(state, connection.connectionId);
}

/** @param {Fold} state @param {string} connectionId */
function behind(state, connectionId) {
  return [...state.maps.devices.values()].filter((d) => d.connectionId === connectionId).map((d) => d.deviceId);
}

/** @param {DeviceView["equipment"]} a @param {DeviceView["equipment"]} b */
function same(a, b) {
  return a === b || Boolean(a && b && a.equipmentId === b.equipmentId && !a.position && !b.position);
}

/** To a thousandth, as the server does it.
 * @param {number} wh */
const roundEnergy = (wh) => Math.floor(wh * 1000 + 0.5) / 1000;

const maxClockAhead = 5 * 60_000;
const clockSet = Date.UTC(2001, 0, 1); // clocks that were never set count from 1970 or 2000

/** Whether a time on a device's clock orders the device's updates. One too far ahead of its
 * arrival, or that no clock shows that was set, is the device's opinion.
 * @param {string} deviceTime @param {Event} event */
function orders(deviceTime, event) {
  let arrival = event.time;
  const here = Number(event.position.split("-")[0]);
  if (event.origin && here < Date.parse(arrival)) arrival = new Date(here).toISOString(); // its own time is another deployment's word
  const ahead = Date.parse(deviceTime) - Date.parse(arrival) - maxClockAhead;
  return (ahead < 0 || (ahead === 0 && rest(deviceTime) <= rest(arrival))) && Date.parse(deviceTime) >= clockSet;
}

/** Compares times to the last digit, of which Date keeps three.
 * @param {string} a @param {string} b */
function isEarlier(a, b) {
  const difference = Date.parse(a) - Date.parse(b);
  return difference < 0 || (difference === 0 && rest(a) < rest(b));
}

/** @param {string} time */
function rest(time) {
  return Number("0." + (/\.\d{3}(\d+)/.exec(time)?.[1] ?? "0"));
}

/**
 * @template Row
 * @param {Row[] | null | undefined} list
 * @param {string} key
 * @returns {Map<string, Row>}
 */
function index(list, key) {
  return new Map((list ?? []).map((row) => [/** @type {any} */ (row)[key], row]));
}
