// What npm packs can be installed, and is what lies in service/web.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { test } from "./harness.js";

const web = path.join(import.meta.dirname, "../../service/web");
const run = promisify(execFile);

test("packed, installed without a network, imported", async () => {
  const folder = await mkdtemp(path.join(os.tmpdir(), "waypost-npm-"));
  try {
    const env = { ...process.env, npm_config_cache: path.join(folder, "cache"), npm_config_update_notifier: "false" };
    const { stdout } = await run("npm", ["pack", "--json", "--silent", "--pack-destination", folder], {
      cwd: web,
      env,
    });
    const [packed] = JSON.parse(stdout);
    assert.deepEqual(packed.files.map((file) => file.path).sort(), [
      "README.md",
      "package.json",
      "waypost.d.ts",
      "waypost.js",
    ]);
    await writeFile(path.join(folder, "package.json"), JSON.stringify({ private: true, type: "module" }));
    const quiet = ["--offline", "--no-audit", "--no-fund", "--no-package-lock", "--silent"];
    await run("npm", ["install", ...quiet, path.join(folder, packed.filename)], { cwd: folder, env });
    const installed = path.join(folder, "node_modules/waypost");
    assert.deepEqual(await readFile(path.join(installed, "waypost.js")), await readFile(path.join(web, "waypost.js")));
    assert.deepEqual(
      (await readdir(path.join(folder, "node_modules"))).filter((name) => !name.startsWith(".")),
      ["waypost"],
    );
    const program =
      'import { connect } from "waypost"; import about from "waypost/package.json" with { type: "json" }; console.log(typeof connect, about.version);';
    const said = await run(process.execPath, ["--no-warnings", "--input-type=module", "-e", program], { cwd: folder });
    assert.equal(said.stdout.trim(), `function ${packed.version}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
