// The state of one system, folded from events by the same rules as
// domain.State.Apply on the server: an absent field is unchanged, null is not
// known, and neither ever means off. No page and no network in here.

const measured = [
  "online", "relayOn", "channel", "powerW", "voltageV", "currentA", "frequencyHz", "powerFactor", "energyWh", "counterWh",
  "temperatureC", "source", "errors", "deviceTime", "connectionId", "name", "attributes",
];

export class State {
  constructor(snapshot) {
    this.systemId = snapshot.systemId;
    this.position = snapshot.position;
    this.seq = snapshot.seq;
    this.devices = index(snapshot.devices, "deviceId");
    this.equipment = index(snapshot.equipment, "equipmentId");
    this.assignments = index(snapshot.assignments, "deviceId");
    this.connections = index(snapshot.connections, "connectionId");
  }

  // apply folds one event in. It answers with the ids of the devices that look
  // different now, or with null when events are missing before this one. An event
  // that was folded already changes nothing.
  apply(event) {
    if (event.seq <= this.seq) return [];
    if (event.seq !== this.seq + 1) return null;
    this.seq = event.seq;
    this.position = event.position;
    const fold = folds[event.event];
    return fold ? fold(this, event, event.data) : [];
  }

  // skip moves on over events that the server left out on purpose.
  skip(skipped) {
    if (skipped.from <= this.seq + 1 && skipped.to > this.seq) this.seq = skipped.to;
  }

  // equipmentOf is what a plug feeds, or undefined.
  equipmentOf(deviceId) {
    const assignment = this.assignments.get(deviceId);
    return assignment && (this.equipment.get(assignment.equipmentId) || { equipmentId: assignment.equipmentId });
  }

  // isStale tells whether nothing new can be known of a device, because the
  // connection that it is behind is down. That says nothing about the device.
  isStale(device) {
    const c = device.connectionId && this.connections.get(device.connectionId);
    return Boolean(c && (c.stopped || c.state === "disconnected" || c.state === "refused"));
  }
}

const folds = {
  "device-update"(state, event, data) {
    const known = state.devices.get(data.deviceId);
    const device = known ? { ...known } : { deviceId: data.deviceId, online: null, relayOn: null };
    if (data.deviceTime && device.deviceTime && Date.parse(data.deviceTime) < Date.parse(device.deviceTime)) {
      return []; // older than what is known: recorded, not folded
    }
    for (const field of measured) {
      if (field in data) device[field] = data[field];
    }
    if (data.online !== false) device.lastSeenAt = event.time;
    if (device.online !== false) delete device.offlineReason;
    return touch(state, event, device);
  },

  "device-offline-status"(state, event, data) {
    const device = { deviceId: data.deviceId, relayOn: null, ...state.devices.get(data.deviceId) };
    device.online = Boolean(data.online);
    if ("lastSeenAt" in data) device.lastSeenAt = data.lastSeenAt;
    device.offlineReason = data.reason;
    if (device.online) delete device.offlineReason;
    return touch(state, event, device);
  },

  "smart-plug-assignment-updated"(state, event, data) {
    const changed = [data.deviceId];
    state.assignments.delete(data.deviceId);
    if (data.equipmentId == null) return changed;
    for (const [holder, assignment] of state.assignments) {
      if (assignment.equipmentId === data.equipmentId) {
        state.assignments.delete(holder);
        changed.push(holder);
      }
    }
    state.assignments.set(data.deviceId, {
      deviceId: data.deviceId, equipmentId: data.equipmentId,
      assignedBy: event.actor, assignedAt: event.time, position: event.position,
    });
    return changed;
  },

  "equipment-registered"(state, event, data) {
    return furnish(state, event, {
      equipmentId: data.equipmentId, name: data.name, kind: data.kind, location: data.location,
      attributes: data.attributes, retired: false,
    });
  },

  "equipment-updated"(state, event, data) {
    const known = state.equipment.get(data.equipmentId);
    if (!known) return [];
    const equipment = { ...known };
    for (const field of ["name", "kind", "location"]) {
      if (field in data) equipment[field] = data[field] ?? "";
    }
    if ("attributes" in data) equipment.attributes = data.attributes;
    return furnish(state, event, equipment);
  },

  "equipment-retired"(state, event, data) {
    const known = state.equipment.get(data.equipmentId);
    return known ? furnish(state, event, { ...known, retired: true }) : [];
  },

  "connection-created"(state, event, data) {
    return connect(state, event, { connectionId: data.connectionId, kind: data.kind, name: data.name, stopped: false });
  },
  "connection-updated": (state, event, data) =>
    reconnect(state, event, data, "name" in data ? { name: data.name ?? "" } : {}),
  "connection-started": (state, event, data) => reconnect(state, event, data, { stopped: false }),
  "connection-stopped": (state, event, data) => reconnect(state, event, data, { stopped: true }),
  "connection-restarted": (state, event, data) => reconnect(state, event, data, { stopped: false }),
  "connection-state-changed": (state, event, data) =>
    reconnect(state, event, data, { state: data.state, stateReason: data.reason }),
  "connection-deleted"(state, event, data) {
    state.connections.delete(data.connectionId);
    return behind(state, data.connectionId);
  },
};

function touch(state, event, device) {
  device.updatedAt = event.time;
  device.position = event.position;
  state.devices.set(device.deviceId, device);
  return [device.deviceId];
}

function furnish(state, event, equipment) {
  state.equipment.set(equipment.equipmentId, { ...equipment, updatedAt: event.time, position: event.position });
  const holders = [...state.assignments.values()].filter((a) => a.equipmentId === equipment.equipmentId);
  return holders.map((a) => a.deviceId);
}

function connect(state, event, connection) {
  state.connections.set(connection.connectionId, { ...connection, updatedAt: event.time, position: event.position });
  return behind(state, connection.connectionId);
}

function reconnect(state, event, data, change) {
  const known = state.connections.get(data.connectionId);
  return known ? connect(state, event, { ...known, ...change }) : [];
}

function behind(state, connectionId) {
  return [...state.devices.values()].filter((d) => d.connectionId === connectionId).map((d) => d.deviceId);
}

function index(list, key) {
  return new Map((list || []).map((entry) => [entry[key], entry]));
}
