// Bundles a page for a React: node bundle.mjs ENTRY OUT NODE_MODULES
import { join } from "node:path";
import { build } from "esbuild";

const [entry, outfile, modules] = process.argv.slice(2);
await build({
  entryPoints: [entry], outfile, bundle: true, format: "esm", jsx: "automatic", minify: false, logLevel: "warning",
  define: { "process.env.NODE_ENV": '"development"' }, // StrictMode mounts twice there
  alias: modules && Object.fromEntries(["react", "react-dom"].map((name) => [name, join(modules, name)])),
});
