// Adds up the results that the parts of a test run left in a folder: vitest's JSON, and texts "N passed, N failed[, N skipped]".
// Prints the sum as the last line; exits with 1 when something failed, or was skipped though TESTS_MUST_RUN=1.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const folder = process.argv[2];
const sum = { passed: 0, failed: 0, skipped: 0 };

for (const name of readdirSync(folder).toSorted()) {
  const text = readFileSync(join(folder, name), "utf8");
  const part = name.endsWith(".json") ? ofVitest(JSON.parse(text)) : ofText(name, text);
  console.log(`  ${name.replace(/\.\w+$/, "").padEnd(10)} ${render(part)}`);
  for (const key of Object.keys(sum)) sum[key] += part[key];
}
console.log(render(sum));
const mustRun = process.env.TESTS_MUST_RUN === "1";
process.exitCode = sum.failed > 0 || sum.passed === 0 || (mustRun && sum.skipped > 0) ? 1 : 0;

function ofVitest({ numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults }) {
  testResults.forEach(printFailures);
  // a file that cannot be loaded has no test that could fail
  const broken = testResults.filter(
    ({ status, assertionResults }) => status === "failed" && assertionResults.every((test) => test.status !== "failed"),
  );
  return { passed: numPassedTests, failed: numFailedTests + broken.length, skipped: numPendingTests + numTodoTests };
}

/** Said once more at the end, where the output of the tests themselves is far above or cut off. */
function printFailures({ name, message, assertionResults }) {
  const failed = assertionResults.filter(({ status }) => status === "failed");
  if (failed.length === 0 && message) console.log(`failed: ${name}: ${message}`);
  for (const { fullName, failureMessages } of failed)
    console.log(`failed: ${name}: ${fullName}\n${failureMessages.join("\n")}`);
}

function ofText(name, text) {
  const [, passed, failed, , skipped] = /(\d+) passed, (\d+) failed(, (\d+) skipped)?/.exec(text) ?? [];
  if (passed === undefined) {
    console.error(`${name} is not a result`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  return { passed: Number(passed), failed: Number(failed), skipped: Number(skipped ?? 0) };
}

function render({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
