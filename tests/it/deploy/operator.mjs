// Validates Prometheus operator objects, a JSON list on standard input, against the operator's own
// types. Its argument is the folder of the npm package @kubernetes-models/prometheus-operator.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder] = process.argv.slice(2);
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${object.apiVersion} ${object.kind}`;
  const types = await import(pathToFileURL(`${folder}/${object.apiVersion}/index.js`));
  if (!types[object.kind]) throw new Error(`${name} is unknown to the operator`);
  new types[object.kind](object).validate();
  console.log(`${name} is valid`);
}
