// Bundles the scripts and styles of both pages into the Python package, with the licences of what
// is bundled. Usage: node build.mjs [FOLDER]
import { readdir, readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const outdir = process.argv[2] ?? "../emcache/views/static";
const { metafile } = await build({
  entryPoints: [
    { in: "src/main.tsx", out: "explorer" },
    { in: "src/workspace.tsx", out: "workspace" },
  ],
  outdir,
  bundle: true,
  minify: true,
  metafile: true,
  format: "iife",
  target: ["chrome110", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "inline",
  charset: "ascii",
  logLevel: "warning",
});

const folders = Object.keys(metafile.inputs)
  .map((path) => path.match(/^node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0])
  .filter(Boolean);
const texts = [];
for (const folder of [...new Set(folders)].sort()) {
  const { name, version } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
  const files = (await readdir(folder)).filter((file) => /^licen[cs]e/i.test(file));
  if (!files.length) {
    throw new Error(`${name} has no licence file`);
  }
  texts.push(`${name} ${version}\n\n${(await readFile(`${folder}/${files[0]}`, "utf8")).trim()}\n`);
}
await writeFile(`${outdir}/licences.txt`, texts.join(`\n${"-".repeat(72)}\n\n`));
