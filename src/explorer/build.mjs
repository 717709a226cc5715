// Bundles the scripts and styles of both pages into the Python package.
import { build } from "esbuild";

await build({
  entryPoints: [
    { in: "src/main.tsx", out: "explorer" },
    { in: "src/workspace.tsx", out: "workspace" },
  ],
  outdir: process.argv[2] ?? "../emcache/views/static",
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome110", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "inline",
  charset: "ascii",
  logLevel: "warning",
});
