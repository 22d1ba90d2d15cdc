// A server renders the hooks: nothing is connected, and nothing is known yet.
import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { createElement, StrictMode, version } from "react";
import { renderToPipeableStream, renderToString } from "react-dom/server";
import { SocketProvider, useDevice, useEvent, useSelector, useSocket } from "@plugcast/client/react";

let called = 0;
const options = { token: () => (called++, "t"), systemId: "s" };

function Inside() {
  const { status, devices, loaded, deviceIds } = useSocket();
  useEvent("*", () => {});
  const device = useDevice("d1");
  const seq = useSelector((client) => client.state().seq);
  return [status, devices.size, loaded, deviceIds.length, typeof device, seq].join(" ");
}
const Alone = () => useSocket(options).status;

const app = createElement(StrictMode, null,
  createElement("p", null, createElement(SocketProvider, options, createElement(Inside))), createElement("p", null, createElement(Alone)));
const want = "<p>idle 0 false 0 undefined 0</p><p>idle</p>";
assert.equal(renderToString(app), want);

const streamed = await new Promise((resolve, reject) => {
  let html = "";
  const sink = new Writable({ write: (chunk, _, done) => { html += chunk; done(); }, final: (done) => { resolve(html); done(); } });
  const stream = renderToPipeableStream(app, { onAllReady: () => stream.pipe(sink), onError: reject });
});
assert.equal(streamed, want);
assert.throws(() => renderToString(createElement(() => useSocket().status)), /SocketProvider/);
assert.equal(called, 0);
console.log(version); // and the process ends: no timer is left
