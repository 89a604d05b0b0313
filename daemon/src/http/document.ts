import { fileURLToPath } from "node:url";
import { makeApp } from "./app.js";
import { renderOpenapi } from "./openapi.js";

/** The OpenAPI document as text, made from the routes; nothing of a daemon is needed for it. */
export async function makeDocument(version: string): Promise<string> {
  const never = (): never => {
    throw new Error("only the description of this route is used");
  };
  const app = await makeApp({
    version,
    sandboxes: {
      create: never,
      list: never,
      get: never,
      destroy: never,
      exec: never,
      logs: never,
      network: never,
      setNetwork: never,
      setSecrets: never,
    },
    diffs: { list: never, file: never, tar: never },
    time: {
      stacks: { activate: never, deactivate: never, restore: never },
      snapshots: { take: never, history: never, pin: never, remove: never, collect: never },
      retention: { set: never },
      forks: { fork: never },
    },
    decisions: { read: never },
    secrets: { list: never, put: never, remove: never, rekey: never, audit: never },
    authorities: { current: never, rotate: never },
    modules: { list: never, get: never, remove: never, put: never, trust: never },
    jobs: { start: never, startFromTar: never, list: never, get: never, watch: never, remove: never },
    health: { health: never },
    metrics: { contentType: "text/plain", render: never },
    webDir: fileURLToPath(new URL("../../../web", import.meta.url)),
    authToken: "",
    checkOrigin: false,
    reportBug: never,
  });
  try {
    return renderOpenapi(app);
  } finally {
    await app.close();
  }
}
