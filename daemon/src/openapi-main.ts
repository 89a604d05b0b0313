import { writeFileSync } from "node:fs";
import { makeDocument } from "./http/document.js";
import { readVersion } from "./version.js";

// Writes the OpenAPI document, which needs no daemon, to the file that is named.
const [target] = process.argv.slice(2);
if (target === undefined) throw new Error("usage: openapi-main <file>");
writeFileSync(target, await makeDocument(readVersion()));
