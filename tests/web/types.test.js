// The types that editors show are those of the code, and a user's program compiles under `strict`.

import assert from "node:assert/strict";
import path from "node:path";
import ts from "typescript";
import * as waypost from "../../service/web/waypost.js";
import { client, fake, live, test } from "./harness.js";

const here = import.meta.dirname;
const web = path.join(here, "../../service/web");
const common = {
  noEmit: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  lib: ["lib.es2023.d.ts", "lib.dom.d.ts", "lib.dom.iterable.d.ts", "lib.dom.asynciterable.d.ts"],
  types: [],
  skipLibCheck: false,
};

function complaints(files, options, counts = () => true) {
  const program = ts.createProgram(files, { ...common, ...options });
  return ts
    .getPreEmitDiagnostics(program)
    .filter(counts)
    .map((one) => {
      const where = one.file
        ? `${path.relative(here, one.file.fileName)}:${one.file.getLineAndCharacterOfPosition(one.start).line + 1}: `
        : "";
      return where + ts.flattenDiagnosticMessageText(one.messageText, "\n");
    });
}

test("a user's program compiles under strict", () => {
  const found = complaints([path.join(here, "types.sample.ts")], {
    strict: true,
    exactOptionalPropertyTypes: true,
    paths: { waypost: [path.join(web, "waypost.d.ts")] },
  });
  assert.deepEqual(found, []);
});

// Names that nobody defines, misspelt ones, too many arguments, code that is never reached. What a compiler guesses of
// the shape of options that have no annotation is not held against the code.
const CERTAIN = new Set([2300, 2304, 2448, 2551, 2552, 2553, 2555, 2588, 2663, 7027, 7028, 7029]);
const certain = ({ code, messageText }) =>
  CERTAIN.has(code) ||
  (code === 2339 &&
    /on type '(?!BroadcastChannel)[A-Z]\w*'/.test(ts.flattenDiagnosticMessageText(messageText, "\n"))) ||
  (code === 2554 && /but got (?!0)/.test(ts.flattenDiagnosticMessageText(messageText, "\n")));

test("the code has no mistake that a compiler is certain of", () => {
  const options = { allowJs: true, checkJs: true, strict: false, maxNodeModuleJsDepth: 0, allowUnreachableCode: false };
  const found = complaints([path.join(web, "waypost.js")], options, certain);
  assert.deepEqual(found, []);
});

test("what the types export is there, and nothing else", async () => {
  const program = ts.createProgram([path.join(web, "waypost.d.ts")], common);
  const checker = program.getTypeChecker();
  const module = checker.getSymbolAtLocation(program.getSourceFile(path.join(web, "waypost.d.ts")));
  const all = checker.getExportsOfModule(module);
  const values = all.filter((symbol) => symbol.flags & ts.SymbolFlags.Value).map((symbol) => symbol.name);
  assert.deepEqual(Object.keys(waypost).sort(), values.sort());

  const server = await fake();
  const one = client(server);
  await live(one);
  const interfaceOfClient = checker.getDeclaredTypeOfSymbol(all.find((symbol) => symbol.name === "Client"));
  for (const { name } of interfaceOfClient.getProperties()) {
    if (!name.startsWith("__@")) assert.ok(name in one, `client.${name}`);
  }
  assert.equal(typeof one[Symbol.asyncIterator], "function");
  for (const [code, meaning] of Object.entries(waypost.CLIENT_ERRORS))
    assert.ok(/^[a-z_]+$/.test(code) && meaning.length > 5);
});
