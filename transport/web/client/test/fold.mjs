// For each line {snapshot, events} writes a line: the snapshot after the events,
// and the index of the first event that was found to come after a gap, or -1.
import { createInterface } from "node:readline";
import { Fold } from "../src/fold.js";

const list = (map) => [...map.keys()].sort().map((key) => map.get(key));

for await (const line of createInterface({ input: process.stdin })) {
  const { snapshot, events } = JSON.parse(line);
  const state = new Fold(snapshot);
  const gap = events.findIndex((event) => state.apply(event) === null);
  console.log(JSON.stringify({
    gap, position: state.position, seq: state.seq, devices: list(state.devices), equipment: list(state.equipment),
    assignments: list(state.assignments), connections: list(state.connections),
  }));
}
