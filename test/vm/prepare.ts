import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureTestModules } from "../support/modules.js";
import { ensureProbeModule } from "../support/probe.js";

/** Makes the images of the tests in build/, where they are missing, so that they can be copied to a machine that has no compiler. */
export function prepareTestImages(): void {
  const folder = mkdtempSync(join(tmpdir(), "test-images-"));
  try {
    ensureTestModules(folder);
    ensureProbeModule(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
